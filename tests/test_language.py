from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamabda.language import is_function_word, language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of France?", "en"),
        ("Qual é a capital da França?", "pt"),
        ("quando foi fundada a UFMS", "pt"),
        ("Who likes Quokkas?", "en"),
        ("", "en"),
        ("12345", "en"),
        ("a", "en"),
        ("Onde fica?", "pt"),
        ("O que é machine learning?", "pt"),
        ("Por que o deploy falhou?", "pt"),
        ("Me explica docker compose", "pt"),
        ("What is férias?", "en"),
        ("Is pão de queijo gluten free?", "en"),
        ("Where is the Universidade de São Paulo?", "en"),
        ("T1406?", "en"),
        ("Which mitigations for T1406?", "en"),
        ("Quais mitigações para T1406?", "pt"),
        ("Horário?", "pt"),
        ("Quem?", "pt"),
        ("Who?", "en"),
        ("Preço", "pt"),
        ("valor do aluguel", "pt"),
        ("What do I do?", "en"),
        ("Quantas ferias eu tenho? nao sei", "pt"),
        ("A loja abre domingo?", "pt"),
        ("A empresa paga hora extra?", "pt"),
        ("no Brasil vale?", "pt"),
        ("Aceitam cartao?", "pt"),
        ("a torque wrench", "en"),
        ("no refund?", "en"),
    ],
)
def test_a_question_s_language_is_seen_by_its_small_words(text: str, expected: str) -> None:
    assert language(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "¿Qué es la memoria?",
        "¿Cuándo abre la oficina?",
        "Cuál es el horario?",
        "Quién fundó la universidad?",
        "Horario de la biblioteca",
        "Donde queda la oficina",
    ],
)
def test_what_is_evidently_spanish_is_not_taken_for_portuguese(text: str) -> None:
    assert language(text) == "en"


@pytest.mark.parametrize(("name", "expected"), [("faquad", "pt"), ("squad2-dev", "en"), ("xquad-es", "en")])
def test_real_questions_are_told_apart(data_dir: Path, name: str, expected: str) -> None:
    lines = (data_dir / "qa" / name / "questions.jsonl").read_text("utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    right = sum(language(question) == expected for question in questions)
    assert right >= 0.99 * len(questions)


def test_content_words_are_not_function_words() -> None:
    assert is_function_word("The")
    assert is_function_word("não")
    assert not is_function_word("memory")
