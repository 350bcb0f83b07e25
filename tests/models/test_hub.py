"""Against a hub of this test: what it answers for gated models, and downloads of both kinds of checkpoints."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from timm.models import save_for_hf

from pcam_ssl.errors import UserError
from pcam_ssl.models.network import build_network

COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """hub(files={"OWNER/NAME": folder}, gated={"OWNER/NAME": status}): a hub on this machine, which the client asks from now on."""
    served: dict = {"files": {}, "gated": {}}

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            owner, name, *rest = [*self.path.strip("/").split("/"), "", ""]
            repository, file = f"{owner}/{name}", rest[2] if rest[0] == "resolve" else ""
            if repository in served["gated"]:
                return self.reply(served["gated"][repository], {"X-Error-Code": "GatedRepo", "X-Error-Message": "restricted"})
            path = served["files"].get(repository)
            if path is None or not (path / file).is_file():
                return self.reply(404, {"X-Error-Code": "EntryNotFound" if path else "RepoNotFound"})
            content = (path / file).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self.reply(200, headers, content, body)

        def reply(self, status, headers, content=b"", body=False):
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))

    def hub(**holds):
        served.update(holds)

    yield hub
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "why"),
    [(401, "no valid token was sent"), (403, "the account of this token has no access")],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("name", ["virchow2", "hf-hub:someone/model"])
def test_a_gated_model_names_the_page_and_the_login(hub, name, status, why):
    repository = {"virchow2": "paige-ai/Virchow2"}.get(name, "someone/model")
    hub(gated={repository: status})
    with pytest.raises(UserError) as caught:
        build_network(name, True, 32)
    assert str(caught.value) == (
        f"model.name: {name} is gated and {why}; ask for access at https://huggingface.co/{repository}, then set HF_TOKEN or run "
        "`hf auth login` (`huggingface-cli login` in older versions)"
    )


def test_a_gated_model_stops_a_run_before_its_folder_is_made(hub, command, slides, tmp_path):
    hub(gated={"paige-ai/Virchow2": 401})
    finished = command("baseline", "--data", slides, "--recipe", "virchow2", "--out", tmp_path / "run")
    assert finished.code == 2
    assert [
        problem for problem in finished.problems if "is gated" in problem and "https://huggingface.co/paige-ai/Virchow2" in problem
    ]
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_model_without_weights_in_reach_names_the_download(hub):
    with pytest.raises(UserError, match=r"weights of midnight cannot be reached .* snapshot_download\('kaiko-ai/midnight'\)"):
        build_network("midnight", True, 32)


def test_a_checkpoint_of_timm_is_downloaded(hub, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=2)
    save_for_hf(model, tmp_path / "made", safe_serialization=True)
    hub(files={"someone/model": tmp_path / "made"})
    network = build_network("hf-hub:someone/model", True, 32)
    assert torch.equal(network.backbone.patch_embed.proj.weight, model.patch_embed.proj.weight)


def test_a_checkpoint_of_transformers_is_downloaded(hub, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: explore)")
    config = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    model = transformers.Dinov2Model(config)
    model.save_pretrained(tmp_path / "made")
    assert json.loads((tmp_path / "made" / "config.json").read_text())["model_type"] == "dinov2"
    hub(files={"someone/model": tmp_path / "made"})
    network = build_network("hf-hub:someone/model", True, 32)
    assert torch.equal(network.backbone.cls_token, model.embeddings.cls_token)
