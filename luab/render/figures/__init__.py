"""The figures of the study, by subject."""
