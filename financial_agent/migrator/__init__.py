"""The migration engine. It imports neither Flask nor Click, and prints nothing."""
