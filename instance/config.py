"""The settings of this deployment. An option or a FINANCIAL_AGENT_… environment variable wins over them."""

# Relative to the instance folder, the one that holds this file. For an installed wheel that folder is
# var/financial_agent-instance inside its environment.
DATABASE = "financial_data.db"
