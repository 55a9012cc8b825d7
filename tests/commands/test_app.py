from types import SimpleNamespace

import pytest

from efp_hf.commands.app import main
from efp_hf.page import layout, server
from efp_hf.review import page as review_page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--auth", "anna"), "`--auth` must be USER:PASSWORD, both not empty"),
        (("--auth", ":secret"), "`--auth` must be USER:PASSWORD, both not empty"),
        (("--auth", "anna:secret", "--mcp"), "`--mcp` and `--auth` exclude each other"),
        (("--port", "99999999"), "argument --port: must be between 1 and 65535, got 99999999"),
        (("--checkpoint", "nowhere"), "nowhere: no checkpoint there"),
    ],
)
def test_app_refuses_what_it_cannot_serve(efp, arguments, words):
    ran = efp("app", *arguments)
    assert ran.code == 2 and words in ran.err


def test_app_hands_its_options_to_the_page(monkeypatch, tiny_checkpoint):
    launched = []
    monkeypatch.setattr(server, "launch", lambda *arguments: launched.append(arguments))
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_MCP_SERVER", "EFP_AUTH"):
        monkeypatch.delenv(name, raising=False)
    assert main([]) == 0
    assert main(["--checkpoint", str(tiny_checkpoint), "--host", "0.0.0.0", "--port", "8080", "--mcp"]) == 0
    monkeypatch.setenv("EFP_AUTH", "anna:se:cret")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "9000")
    assert main([]) == 0
    assert launched == [
        ("efp-isic", "127.0.0.1", 7860, None, False),
        (str(tiny_checkpoint), "0.0.0.0", 8080, None, True),
        ("efp-isic", "127.0.0.1", 9000, ("anna", "se:cret"), False),
    ]


def test_port_of_the_environment_is_checked_as_one_that_is_given(efp, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_PORT", "x")
    assert efp("app", "--help").code == 0
    ran = efp("app")
    assert ran.code == 2 and ran.err == "efp app: argument --port: must be between 1 and 65535, got x\n"


def test_servers_print_their_address_and_no_advertisement(monkeypatch, capsys, tiny_checkpoint):
    done = []

    def launch(**options):
        done.append(options["quiet"] and options["prevent_thread_lock"])

    blocks = SimpleNamespace(launch=launch, queue=lambda **_: None, block_thread=lambda: done.append("waits"))
    for module in (layout, review_page):
        monkeypatch.setattr(module, "build_page", lambda *_: blocks)
    monkeypatch.setattr(server, "keep_clean", lambda _: None)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    server.launch(tiny_checkpoint, port=8080)
    review_page.launch(None, 8081)
    lines = capsys.readouterr().out.splitlines()
    assert done == [True, "waits"] * 2
    assert [line.split()[0] for line in lines] == ["http://127.0.0.1:8080", "http://127.0.0.1:8081"]
