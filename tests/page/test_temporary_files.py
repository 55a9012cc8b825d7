"""What lies on the server, and for how long."""

import time

from efp_hf.page.temporary_files import SessionFiles, delete_old_files, new_answer_folder, upload_folder


def test_only_old_files_are_deleted(tmp_path):
    (tmp_path / "gone").mkdir()
    for name in ("gone/photo.jpg", "stays.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert delete_old_files(tmp_path, max_age=60) == 0
    assert (tmp_path / "gone" / "photo.jpg").exists()
    time.sleep(0.05)
    (tmp_path / "stays.jpg").chmod(0o600)  # its change time is now
    assert delete_old_files(tmp_path, max_age=0.04) == 1
    assert (tmp_path / "stays.jpg").exists() and not (tmp_path / "gone" / "photo.jpg").exists()


def test_closed_session_takes_its_files_but_no_shared_and_no_foreign_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    upload_folder().mkdir()
    own, shared, foreign = upload_folder() / "own.jpg", upload_folder() / "shared.jpg", tmp_path / "foreign.jpg"
    for path in (own, shared, foreign):
        path.write_bytes(b"x")
    folder = new_answer_folder()
    files = SessionFiles()
    files.add("first", own, str(shared), foreign, folder)
    files.add("second", shared)
    files.delete("first")
    assert not own.exists() and not folder.exists()
    assert shared.exists() and foreign.exists()
    files.delete("second")
    files.delete("unknown")
    assert not shared.exists()
