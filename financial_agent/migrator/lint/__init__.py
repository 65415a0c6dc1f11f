"""The house rules for migration files: what each asks for, and what in a folder of migrations breaks it."""
