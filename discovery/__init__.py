"""Discovery: the registry that says which agents are deployed, where, and whether they are well."""
