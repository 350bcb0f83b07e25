import pytest

from pcam_ssl.data.importing import import_source
from pcam_ssl.data.sources import list_source
from pcam_ssl.errors import UserError


def test_absent_source_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file or folder; name what to import"):
        list_source(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["notes.txt", "folder/notes.txt"])
def test_an_unknown_format_names_the_known_ones(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / name).write_text("hello")
    with pytest.raises(UserError, match=r"format not recognised; looked for Kaggle's zip or folder .* or one image"):
        list_source(tmp_path / name.split("/")[0])


def test_a_dataset_needs_no_import(tmp_path, make_kaggle):
    import_source(make_kaggle(), tmp_path / "set")
    with pytest.raises(UserError, match=r"set: is a dataset already; use it as it is with --data"):
        list_source(tmp_path / "set")
