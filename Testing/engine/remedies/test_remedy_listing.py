"""Every refusal in the engine's code is tried: a test provokes it, does what it says, and sees that it works."""

from pathlib import Path

from untried import ELSEWHERE, UNTRIED

from remedies import ENGINE, names_in_tests, names_of_nothing, without_test

ENGINE_TESTS = Path(__file__).resolve().parents[1]


def test_each_refusal_has_a_test_that_follows_its_remedy_or_a_reason():
    missing = without_test(ENGINE, [*UNTRIED, *ELSEWHERE])
    told = "\n".join(missing)
    assert not missing, f"{len(missing)} refusals without a tried remedy, see Testing/remedies.py:\n{told}"


def test_each_name_is_that_of_a_refusal():
    assert not names_of_nothing(ENGINE, [*UNTRIED, *ELSEWHERE])


def test_what_is_left_out_has_a_reason_and_is_not_tried():
    assert all(len(reason) > 30 for reason in UNTRIED.values())
    assert not (UNTRIED.keys() | ELSEWHERE.keys()) & names_in_tests().keys()
    for place in ELSEWHERE.values():
        file, test = place.split("::")
        assert f"def {test}(" in (ENGINE_TESTS / file).read_text(encoding="utf-8")
