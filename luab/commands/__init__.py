"""Commands of the command line: stages of the study, checks, status, export and generated pages."""
