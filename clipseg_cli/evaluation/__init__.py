"""Scores: of models, of students, and of label maps from anywhere."""
