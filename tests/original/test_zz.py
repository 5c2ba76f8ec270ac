from tests.original.test_download_qwen import *
from tests.original.test_download_qwen import download, publish


@pytest.mark.parametrize("name", ["hub", "modelscope"])
def test_x(name, request):
    served = request.getfixturevalue(name)
    choice = "huggingface" if name == "hub" else "modelscope"
    publish(served, "main" if name == "hub" else "master")
    folder = served.user.home / "m"
    o = download(served, "--hub", choice, "--folder", "m")
    print("first", o.returncode, o.stdout, o.stderr[-400:])
    for content in (b"", b"\xff\xfe", b"# x\nnot a line\n"):
        (folder / "SHA256SUMS").write_bytes(content)
        o = download(served, "--hub", choice, "--folder", "m")
        print("sums", content, o.returncode, o.stderr[-400:])
    w = folder / "model-00001-of-00002.safetensors"
    w.write_bytes(bytes(len(WEIGHTS)))
    o = download(served, "--hub", choice, "--folder", "m")
    print("damaged", o.returncode, o.stderr[-400:], w.read_bytes() == WEIGHTS)
    w.write_bytes(WEIGHTS[:100])
    o = download(served, "--hub", choice, "--folder", "m")
    print("short", o.returncode, o.stderr[-400:], w.read_bytes() == WEIGHTS)
    for args in (
        ["--model", "qwen"],
        ["--model", "../x/y"],
        ["--model", "a b/c"],
        ["--mirror", "nonsense"],
        ["--mirror", ""],
        ["--revision", "none"],
        ["--model", ""],
        ["--model", "x/"],
    ):
        o = download(served, "--hub", choice, "--folder", "m2", *args)
        print(args, o.returncode, o.stderr[-600:])
    (served.user.home / "f").write_text("x")
    o = download(served, "--hub", choice, "--folder", "f")
    print("file", o.returncode, o.stderr[-400:])
    assert 0
