"""`clipseg export`: one file that computes what the student computes, anywhere; or a sentence and no file."""

import json
import sys
from pathlib import PurePosixPath

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.commands import export as export_module
from clipseg_cli.commands.export import export_student
from clipseg_cli.config import ExportConfig, InferenceConfig
from clipseg_cli.errors import ClassListError, ModelError, OutputError, UsageError
from clipseg_cli.inference.students import plan_student
from clipseg_cli.models.student import onnx as graph_module
from clipseg_cli.models.student.files import StudentCard, read_student, write_student
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.models.student.onnx import OPSET, Port
from clipseg_cli.types import ClassList, DecodedImage, ImageSource

CPU = torch.device("cpu")
CLASSES = ClassList(
    ("background", "cat", "red car"), (("background",), ("cat", "kitten", "猫"), ("red car",)), 0
)
SMALL = (40, 56)
TEACHER = {"name": "ViT-B-16", "pretrained": "/nowhere/clip.safetensors", "fingerprint": "0" * 16}


def make_run(folder, *, head="deeplabv2", learnt=True, normalise=False, teacher=TEACHER):
    """A run folder with one checkpoint: a student with random weights, to which no word is the best everywhere."""
    shape = StudentShape("resnet10t", head, 32, normalise)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        words = torch.randn(len(CLASSES.queries), 32)
        student = Student(shape, words, CLASSES.query_to_class, 0 if learnt else None).eval()
        usual = F.normalize(student(random_images(1, 64, 64) / 64 - 2)[0].mean(dim=(0, 2, 3)), dim=0)  # [D]
        for rows in (student.text_embeds, *([student.background] if learnt else [])):
            rows -= (rows @ usual)[..., None] * usual
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    card = StudentCard(shape, CLASSES, ("a {}.",), mean, std, short_side=0, long_side=512, teacher=teacher)
    write_student(folder / "checkpoints" / "last-000010", student, card)
    return folder


def config(run, file, **others):
    return ExportConfig(student=str(run), onnx=file, **{"size": SMALL, **others})


def random_images(batch, height, width):
    """[B, 3, H, W] float32 in [0, 255]."""
    coarse = torch.rand(batch, 3, 4, 4, generator=torch.Generator().manual_seed(7)) * 255
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255).round()


def run_file(file, image):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(array) for array in session.run(["logits", "labels"], {"image": image.numpy()})]


def by_hand(run, image):
    """What the student says of pictures in [0, 255]: words resized to the picture, the best one of each class."""
    student, card = read_student(run / "checkpoints" / "last-000010", CPU)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (card.mean, card.std))
    features, _ = student((image / 255 - mean) / std)
    words = F.interpolate(student.logits(features), size=image.shape[2:], mode="bilinear")
    mapping = torch.tensor(card.classes.query_to_class)
    logits = torch.stack([words[:, mapping == c].amax(1) for c in range(len(card.classes))], dim=1)
    return logits, logits.argmax(1)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.max() - expected.min()))


@pytest.fixture
def quick(monkeypatch):
    """The exporter that takes half a second, for tests that are not about exporters."""
    monkeypatch.setattr(graph_module, "NEWER_EXPORTER", "9999")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(run, file, what was said) of this torch's own exporter, on the student with the most kinds of layers."""
    folder = tmp_path_factory.mktemp("export")
    run = make_run(folder / "run", head="deeplabv3plus", normalise=True)
    return run, folder / "s.onnx", export_student(config(run, folder / "s.onnx"))


@pytest.mark.parametrize("size", [(2, 48, 80), (1, 33, 129), (3, 8, 9)])
def test_the_file_computes_what_the_student_computes_at_any_size(exported, size):
    run, file, _ = exported
    image = random_images(*size)
    found, expected = run_file(file, image), by_hand(run, image)
    assert_close(found[0], expected[0])
    assert found[1].dtype == torch.int64
    assert len(expected[1].unique()) > 1
    assert (found[1] == expected[1]).float().mean() > 0.999


def test_a_picture_is_labelled_as_by_the_inference_loop(exported):
    run, file, _ = exported
    image = random_images(1, 64, 96)
    pixels = image[0].permute(1, 2, 0).byte().numpy()
    plan = plan_student(InferenceConfig(student=str(run), device="cpu", precision="fp32"))
    _, predictor = plan.load(CLASSES)
    decoded = DecodedImage(ImageSource(None, PurePosixPath("x")), pixels)
    (segmentation,) = predictor.predict([predictor.prepare(decoded)])
    labels = run_file(file, image)[1][0].numpy()
    assert len(np.unique(labels)) > 1
    assert (labels == segmentation.labels).mean() > 0.999


def test_the_file_says_how_it_is_called_and_what_its_labels_mean(exported):
    _, file, said = exported
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    ports = [(p.name, p.type, p.shape) for p in (*session.get_inputs(), *session.get_outputs())]
    assert ports == [
        ("image", "tensor(float)", ["batch", 3, "height", "width"]),
        ("logits", "tensor(float)", ["batch", 3, "height", "width"]),
        ("labels", "tensor(int64)", ["batch", "height", "width"]),
    ]
    assert said.inputs == (Port("image", "float32", ("batch", 3, "height", "width")),)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts.pop("classes")) == ["background", "cat", "red car"]
    assert facts.pop("short_side") == "0"
    assert facts.pop("clipseg")
    assert not facts
    assert [(o.domain, o.version) for o in onnx.load(file).opset_import if not o.domain] == [("", OPSET)]
    assert said.opset == OPSET


def test_the_file_is_whole_and_tells_nothing_of_this_machine(exported):
    run, file, said = exported
    assert {path.name for path in file.parent.iterdir()} == {run.name, file.name}
    weights = sum(p.numel() for p in said.model.student.parameters())
    assert said.size == file.stat().st_size > 4 * 0.99 * weights  # batch norm is folded into convolutions
    proto = onnx.load(file, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert not any(t.external_data for t in proto.graph.initializer)
    assert b".py" not in file.read_bytes()


@pytest.mark.parametrize(
    ("head", "normalise"), [("deeplabv3plus", False), ("deeplabv2", True), ("deeplabv2", False)]
)
def test_every_kind_of_student_by_the_older_exporter(tmp_path, quick, head, normalise):
    run = make_run(tmp_path / "run", head=head, normalise=normalise, learnt=False)
    export_student(config(run, tmp_path / "s.onnx"))
    image = random_images(2, 35, 66)
    found, expected = run_file(tmp_path / "s.onnx", image), by_hand(run, image)
    assert_close(found[0], expected[0])
    assert (found[1] == expected[1]).float().mean() > 0.999


def test_other_words_come_from_the_teachers_text_tower(tmp_path, quick, tiny_clip):
    from clipseg_cli.models.clip.backbones import load_backbone

    fingerprint = load_backbone(tiny_clip.name, str(tiny_clip.weights), CPU).fingerprint
    teacher = {"name": tiny_clip.name, "pretrained": str(tiny_clip.weights), "fingerprint": fingerprint}
    run = make_run(tmp_path / "run", teacher=teacher)
    said = export_student(config(run, tmp_path / "s.onnx", classes="cat,boat|ship"))
    assert said.classes.names == ("background", "cat", "boat")
    assert said.classes.aliases[0] == ("background",)  # the learnt one, not the usual words
    image = random_images(1, 40, 40)
    found, own = run_file(tmp_path / "s.onnx", image)[0], by_hand(run, image)[0]
    assert_close(found[:, 0], own[:, 0])
    closed = export_student(config(run, tmp_path / "c.onnx", classes="boat,cat", background="none"))
    assert closed.classes.names == ("boat", "cat")
    assert run_file(tmp_path / "c.onnx", image)[0].shape == (1, 2, 40, 40)


def test_words_without_their_text_tower_are_refused(tmp_path, run):
    with pytest.raises(ModelError, match=r"/nowhere/clip\.safetensors"):
        export_student(config(run, tmp_path / "s.onnx", classes="zebra"))
    assert not (tmp_path / "s.onnx").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda logits, labels: (logits * 1.01, labels), "something else"),
        (lambda logits, labels: (logits, (labels + 1) % 3), "something else"),
        (lambda logits, labels: (logits * np.float32("nan"), labels), "something else"),
    ],
    ids=["other logits", "other labels", "NaN"],
)
def test_a_graph_that_computes_something_else_is_not_kept(tmp_path, run, quick, monkeypatch, spoil, message):
    session = onnxruntime.InferenceSession

    class Wrong:
        def __init__(self, *args, **kwargs):
            self.session = session(*args, **kwargs)

        def run(self, *args):
            return spoil(*self.session.run(*args))

    file = tmp_path / "s.onnx"
    file.write_bytes(b"earlier")
    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    with pytest.raises(ModelError, match=message):
        export_student(config(run, file))
    assert file.read_bytes() == b"earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "s.onnx"}


def test_near_ties_may_fall_either_way():
    logits = torch.tensor([0.0, 1.0, 0.9999]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    check = export_module._compare((logits, logits.argmax(1)), (logits, torch.full((1, 2, 2), 2)))
    assert check.equal_labels == 0
    with pytest.raises(ModelError, match=r"0\.00% of the labels"):
        export_module._compare((logits, logits.argmax(1)), (logits, torch.zeros(1, 2, 2, dtype=torch.long)))


def test_bad_names_of_files_are_refused_before_any_work(tmp_path, run, monkeypatch):
    monkeypatch.setattr(export_module, "read_student", None)
    weights = run / "checkpoints" / "last-000010" / "student.safetensors"
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        export_student(config(run, weights))
    (tmp_path / "d.onnx").mkdir()
    with pytest.raises(OutputError, match="is a folder") as caught:
        export_student(config(run, tmp_path / "d.onnx"))
    assert "--onnx" in caught.value.hint
    with pytest.raises(OutputError, match="not a folder") as caught:
        export_student(config(run, weights / "s.onnx"))
    assert "--onnx" in caught.value.hint
    with pytest.raises(ClassListError, match="twice"):
        export_student(config(run, tmp_path / "s.onnx", classes="cat,cat"))


def test_a_missing_package_is_named_with_the_way_to_it(tmp_path, run, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = cli("export", run, "--onnx", tmp_path / "s.onnx")
    assert done.code == 1
    assert "not installed: onnxscript\n" in done.err
    assert 'pip install "clipseg-cli[onnx]"' in done.err


def test_the_command_says_what_it_wrote(tmp_path, run, quick, cli):
    file = tmp_path / "new" / "folder" / "s.onnx"
    done = cli("export", run, "--onnx", file)
    assert done.code == 0, done.err
    assert file.is_file()
    for part in (str(file), "MB, opset 18", "image: float32 [batch, 3, height, width]", "3: background, cat"):
        assert "".join(part.split()) in "".join(done.out.split())  # a long path is broken into lines
    assert "100.00% of labels equal" in done.out
    assert "exported in" in done.err
    assert "Warning" not in done.err
    assert "[torch.onnx]" not in done.out


def test_json_says_the_same(tmp_path, run, quick, cli):
    file = tmp_path / "s.onnx"
    done = cli("export", run / "last", "--onnx", file, "--json", "--quiet")
    said = json.loads(done.out)
    assert done.err == ""
    assert said["file"] == str(file)
    assert said["bytes"] == file.stat().st_size
    assert said["student"]["name"] == "student resnet10t"
    assert said["outputs"][0] == {
        "name": "logits",
        "type": "float32",
        "shape": ["batch", 3, "height", "width"],
    }
    assert said["classes"][1] == {
        "id": 1,
        "name": "cat",
        "words": ["cat", "kitten", "猫"],
        "background": False,
    }
    assert [c["equal_labels"] for c in said["checks"]] == [1.0, 1.0]
    assert all(0 <= c["max_difference"] < 1e-3 * c["range"] for c in said["checks"])
    assert len({c["height"] % 8 for c in said["checks"]}) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "no such folder"),
        (["{tmp}"], 1, "is no run of clipseg train"),
        (["{empty}"], 1, "has no checkpoint yet"),
        (["{run}", "--classes", ""], 2, "--classes is empty"),
        (["{run}", "--background", "grass"], 2, "--background does nothing without --classes"),
        (["{run}", "--onnx", "student"], 2, "must end in .onnx"),
        ([], 2, "Missing argument 'RUN'"),
    ],
)
def test_mistakes_are_said_in_a_sentence(tmp_path, run, cli, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    places = {"tmp": tmp_path, "run": run, "empty": tmp_path / "empty"}
    done = cli("export", *[text.format(**places) for text in arguments])
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert not list(tmp_path.glob("**/*.onnx"))
