import json

import pytest
from hub_server import TOKEN

from efp_hf.publishing.folders import EVAL_RESULTS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: --repo"),
        (("--repo", "mine"), "argument --repo: must be OWNER/NAME, got mine"),
        (("--repo", "me/my model"), "argument --repo: must be OWNER/NAME, got me/my model"),
        (("--repo", "me/mine", "--space", "me"), "argument --space: must be OWNER/NAME, got me"),
        (("--repo", "me/mine", "--checkpoint", "me/mine"), "me/mine: no such folder. What is published must be on"),
        (("--repo", "me/mine", "--checkpoint", "./none"), "./none: no checkpoint there"),
        (("--repo", "me/mine", "--dry-run", "."), ". is not empty. Choose another --dry-run."),
        (("--repo", "me/mine", "--dry-run", "something"), "something is a file. Choose another --dry-run."),
        (("--repo", "me/mine", "--dry-run", "new", "--exports", "coreml"), "folders of `efp export`, got coreml"),
    ],
)
def test_arguments_that_cannot_be_are_refused(efp, tmp_path, arguments, words):
    (tmp_path / "something").touch()
    ran = efp("publish", *arguments)
    assert ran.code == 2 and ran.err.startswith("efp publish: ") and words in ran.err
    assert not (tmp_path / "new").exists()


def test_without_a_token_one_sentence_says_how_to_log_in(efp, monkeypatch):
    monkeypatch.setattr("efp_hf.publishing.upload.get_token", lambda: None)
    ran = efp("publish", "--repo", "me/mine")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "efp publish: No token of the Hub was found. "
        "Run `hf auth login`, or set the variable HF_TOKEN to one that may write.\n"
    )


def test_without_a_network_nothing_is_begun_and_the_token_is_not_printed(efp, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = efp("publish", "--repo", "me/mine")
    assert (
        ran.code == 2 and ran.err == "efp publish: HF_HUB_OFFLINE is set, so that nothing can be uploaded. Unset it.\n"
    )
    assert TOKEN not in ran.out + ran.err


def test_everything_that_is_wrong_is_named_and_nothing_is_written(efp, tmp_path, tiny_checkpoint):
    source = tmp_path / "mine"
    (source / EVAL_RESULTS).mkdir(parents=True)
    for path in tiny_checkpoint.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / EVAL_RESULTS / "isic.yaml").write_text("value: 1")
    (source / EVAL_RESULTS / "token.yaml").write_text(json.dumps([{"notes": TOKEN}]))
    ran = efp("publish", "--checkpoint", source, "--repo", "me/mine", "--dry-run", tmp_path / "upload")
    assert ran.code == 2 and ran.out == "" and TOKEN not in ran.err
    first, *named = ran.err.splitlines()
    assert first == "efp publish: nothing was uploaded:"
    assert [line.split(": ")[:2] for line in named] == [
        ["  model", f"{EVAL_RESULTS}/token.yaml"],
        ["  model", "README.md"],
        ["  model", f"{EVAL_RESULTS}/isic.yaml"],
        ["  model", f"{EVAL_RESULTS}/token.yaml"],
    ]
    assert not (tmp_path / "upload").exists()
