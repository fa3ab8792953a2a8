"""Faults for the doctor to find: honest, fast trainings, and what is done to them from outside.

``subjects`` builds the trainings, ``fault`` says what a fault is, and each other file holds a family of them. They were
written from the doctor's published interface alone, before its measuring code was read; ``second`` and
``second_learning`` when the doctor was finished, by someone else.
"""
