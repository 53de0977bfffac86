"""The benchmark protocols, from predictions to scores: what each needs, how it is computed, all of them collected."""
