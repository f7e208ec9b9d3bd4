"""Pieces of networks shared by methods and ignorant of their names."""
