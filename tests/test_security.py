"""What the program never does, whoever made its input: run it, leave its folders, tell secrets."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import command

import piebench_masks
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.store import Artifacts, Folder

SOURCES = sorted(Path(piebench_masks.__file__).parent.rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}
FORBIDDEN_CALLS |= {"yaml.unsafe_load", "pd.read_pickle", "np.loads"}


def name_of(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from FORBIDDEN_MODULES & {module.split(".")[0] for module in modules}
        if isinstance(node, ast.Call):
            name, keywords = name_of(node.func), {k.arg: k.value for k in node.keywords}
            given = {key: ast.unparse(value) for key, value in keywords.items()}
            if name in FORBIDDEN_CALLS or name.endswith(".to_pickle"):
                yield name
            if name == "torch.load" and given.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if name == "np.load" and given.get("allow_pickle", "False") != "False":
                yield "np.load with pickles"
            if given.get("shell", "False") != "False":
                yield f"{name} through a shell"
            if given.get("use_safetensors", "True") != "True":
                yield f"{name} of weights that may be pickles"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "torch.load(p)",
        "a.to_pickle(p)",
        "subprocess.run(c, shell=True)",
        "np.load(p, allow_pickle=True)",
    ],
)
def test_an_offence_would_be_seen(source: str) -> None:
    assert list(offences(ast.parse(source)))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_runs_what_it_reads(path: Path) -> None:
    assert list(offences(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "a/../../x", "/etc/x", "a//b", "", ".", "a/.", "a\\b", "a\0b", "~x", "a b", "é"],
)
def test_no_name_of_an_artifact_leaves_its_folder(name: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "artifacts")
    with pytest.raises(ValueError, match="is no name of an artifact"):
        folder.write_bytes(name, b"")
    with pytest.raises(ValueError, match="is no name of an artifact"):
        Artifacts(tmp_path).at(name, {})
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_wandb_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "5ec2e7" * 7  # 42 characters, not all of one kind, as W&B wants its keys
    for name, value in {"WANDB_API_KEY": secret, "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_shapes(tmp_path / "data" / "shapes", per_type=1)
    settings = ["limit=1", "mask=[ours]", "baselines=[]", "stages=[parse,masks,score,report]"]
    done = command(tmp_path, *settings, "tracker=wandb")
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert secret not in done.stdout + done.stderr
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_the_packages_weights_are_safetensors() -> None:
    weights = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz"}
    carried = Path(piebench_masks.__file__).parent.rglob("*")
    assert not [path for path in carried if path.suffix in weights]
