"""Every refusal in the module's code is tried: a test provokes it, does what it says, and sees that it works."""

from untried_by_panel import UNTRIED

from remedies import PANEL, names_in_tests, names_of_nothing, without_test


def test_each_refusal_has_a_test_that_follows_its_remedy_or_a_reason():
    missing = without_test(PANEL, UNTRIED)
    told = "\n".join(missing)
    assert not missing, f"{len(missing)} refusals without a tried remedy, see Testing/remedies.py:\n{told}"


def test_each_name_is_that_of_a_refusal():
    assert not names_of_nothing(PANEL, UNTRIED)


def test_what_is_left_out_has_a_reason_and_is_not_tried():
    assert all(len(reason) > 30 for reason in UNTRIED.values())
    assert not UNTRIED.keys() & names_in_tests(PANEL).keys()
