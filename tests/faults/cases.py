"""All cases of the fault matrix, in the order of the report."""

from tests.faults import (
    answer_cases,
    dependency_cases,
    hint_cases,
    matrix_cases,
    process_cases,
)

SCRIPTS = [
    *matrix_cases.SCRIPTS,
    *process_cases.SCRIPTS,
    *answer_cases.SCRIPTS,
    *hint_cases.SCRIPTS,
    *dependency_cases.SCRIPTS,
]
