from trustnlp.studies.catalogue import STUDIES


def test_studies_are_found_by_their_own_name_and_state_a_claim() -> None:
    assert all(study.name == name for name, study in STUDIES.items())
    assert all(study.claim.endswith(".") and study.system.startswith("S") for study in STUDIES.values())
    assert {"panel", "rows", "columns"} == {axis for study in STUDIES.values() for axis in study.axes}
