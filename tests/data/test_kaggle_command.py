import io
import sys
import zipfile

import pytest

from pcam_ssl.data import kaggle_command
from pcam_ssl.data.kaggle_command import COMPETITION, RULES_PAGE, TOKEN_PAGE, download_kaggle
from pcam_ssl.errors import UserError

NO_TOKEN = "Authentication required to call the Kaggle API.\n\nFirst, you will need a Kaggle account. You can sign up at\n"
FORBIDDEN = "403 Client Error: Forbidden for url: https://api.kaggle.com/v1/competitions.CompetitionApiService/DownloadDataFiles"
OLD_RULES = "403 - Forbidden - You must accept this competition's rules before you'll be able to download files."
UNAUTHORIZED = "401 Client Error: Unauthorized for url: https://www.kaggle.com/api/v1/competitions/data/download-all/x"
OLD_NO_TOKEN = "Traceback (most recent call last):\n  File x\nOSError: Could not find kaggle.json. Make sure it's in /root/.kaggle."
OFFLINE = "HTTPSConnectionPool(host='api.kaggle.com', port=443): Max retries exceeded with url: /v1 (Caused by NameResolutionError)"
BAR = "\r  5%|5  | 403M/7.7G [00:10<04:01, 401MB/s]"

pytestmark = pytest.mark.processes


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """kaggle(code): put a command `kaggle` on PATH that runs this Python; `words` are its arguments and `folder` that of -p."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(kaggle_command.sys, "executable", str(tmp_path / "bin" / "python"))

    def install(code):
        command = tmp_path / "bin" / "kaggle"
        begin = f"#!{PYTHON}\nimport os, sys\nwords = sys.argv[1:]\nfolder = words[words.index('-p') + 1]\n"
        command.write_text(f"{begin}zip = os.path.join(folder, {COMPETITION + '.zip'!r})\n{code}\n")
        command.chmod(0o755)
        return command

    return install


PYTHON = sys.executable


@pytest.fixture
def archive(tmp_path):
    """The path of a small whole zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("train_labels.csv", "id,label\n")
    (tmp_path / "whole.zip").write_bytes(buffer.getvalue())
    return tmp_path / "whole.zip"


def problem(folder):
    with pytest.raises(UserError) as told:
        download_kaggle(folder)
    assert len(told.value.problems) == 1 and "\n" not in str(told.value)
    return str(told.value)


def test_the_zip_is_downloaded_by_the_users_command(tmp_path, kaggle, archive):
    kaggle(f"print(words, file=open({str(tmp_path / 'words')!r}, 'w')); open(zip, 'wb').write(open({str(archive)!r}, 'rb').read())")
    (path,) = download_kaggle(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / f"{COMPETITION}.zip"
    assert path.read_bytes() == archive.read_bytes()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert (tmp_path / "words").read_text().startswith(f"['competitions', 'download', '-c', '{COMPETITION}', '-p', ")


def test_a_zip_that_is_there_is_kept(tmp_path, kaggle, archive):
    kaggle("sys.exit('called')")
    target = tmp_path / f"{COMPETITION}.zip"
    target.write_bytes(archive.read_bytes())
    assert download_kaggle(tmp_path) == [target]
    target.write_bytes(archive.read_bytes()[:-30])
    assert problem(tmp_path) == f"{target}: cut short, or not a zip file; delete it and run this again"


def test_no_command_says_how_to_get_it(tmp_path, kaggle):
    told = problem(tmp_path / "folder")
    assert told.startswith("kaggle: no such command; `pip install kaggle`, ")
    assert TOKEN_PAGE in told and RULES_PAGE in told


def test_the_command_beside_python_is_found(tmp_path, kaggle, archive, monkeypatch):
    kaggle(f"open(zip, 'wb').write(open({str(archive)!r}, 'rb').read())")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert download_kaggle(tmp_path / "folder")[0].is_file()


@pytest.mark.parametrize(
    ("output", "what", "page"),
    [
        (FORBIDDEN, "refuses the download (403)", RULES_PAGE),
        (OLD_RULES, "refuses the download (403)", RULES_PAGE),
        (UNAUTHORIZED, "no valid API token (401)", TOKEN_PAGE),
        (NO_TOKEN, "no valid API token (401)", TOKEN_PAGE),
        (OLD_NO_TOKEN, "no valid API token (401)", TOKEN_PAGE),
        (f"{BAR}\n{OFFLINE}", "cannot be reached", "check the connection"),
        (f"{BAR}\nOSError: [Errno 28] No space left on device", "the disk is full", "free some space"),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_failures_are_one_line_with_the_page_to_open(tmp_path, kaggle, output, what, page, stream):
    kaggle(f"print({output!r}, file=sys.{stream}); sys.exit(1)")
    told = problem(tmp_path)
    assert told.startswith("kaggle: ") and what in told and page in told
    assert told.endswith("then run the same command")


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (f"Downloading x.zip to y\n{BAR}\nValueError: odd\n\nIf this is unexpected, you can re-run", "ValueError: odd"),
        ("Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'six'", "No module named 'six'"),
        ("", "exit code 1"),
    ],
)
def test_other_failures_are_told_in_kaggles_words(tmp_path, kaggle, output, line):
    kaggle(f"print({output!r}); sys.exit(1)")
    told = problem(tmp_path)
    assert told.startswith("kaggle: failed (") and told.endswith(f"{line}); run the same command to continue")


def test_a_broken_transfer_has_no_final_name_and_goes_on(tmp_path, kaggle, archive):
    content = archive.read_bytes()
    kaggle(f"open(zip, 'ab').write({content[:50]!r}); sys.exit({OFFLINE!r})")
    assert "cannot be reached" in problem(tmp_path / "folder")
    assert [path for path in (tmp_path / "folder").iterdir() if not path.name.startswith(".")] == []
    kaggle(f"open(zip, 'ab').write({content[50:]!r})")
    assert download_kaggle(tmp_path / "folder")[0].read_bytes() == content


def test_a_cut_zip_that_kaggle_takes_for_whole_is_removed(tmp_path, kaggle, archive):
    kaggle(f"open(zip, 'wb').write({archive.read_bytes()[:50]!r})")
    assert "cut short, or not a zip file; it was removed: run the same command again" in problem(tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_an_end_without_a_zip_is_one_line(tmp_path, kaggle):
    kaggle("print('User cancelled operation')")
    assert problem(tmp_path) == f"kaggle: ended without {COMPETITION}.zip; run the same command to continue"


def test_a_command_that_cannot_run_is_one_line(tmp_path, kaggle):
    command = kaggle("")
    command.write_bytes(b"\x00\x01")
    assert problem(tmp_path).startswith(f"{command}: cannot be run (")


def test_an_unwritable_folder_is_one_line(tmp_path, kaggle):
    kaggle("sys.exit('called')")
    (tmp_path / "file").touch()
    assert problem(tmp_path / "file" / "folder").endswith("cannot be written (Not a directory); name another folder")


def test_progress_is_drawn_in_a_terminal_alone(tmp_path, kaggle, archive, capfd, monkeypatch):
    kaggle(f"print({BAR!r}, file=sys.stderr); print('Downloading'); open(zip, 'wb').write(open({str(archive)!r}, 'rb').read())")
    download_kaggle(tmp_path / "log")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(kaggle_command, "draws_bars", lambda: True)
    download_kaggle(tmp_path / "terminal")
    assert "403M/7.7G" in capfd.readouterr().err
