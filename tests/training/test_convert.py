"""A converted checkpoint goes the way of a trained one: adapter, merged model, report."""

import re

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.data.data_spec import DataSpec
from snaketune.data.prepare import prepare
from snaketune.evaluation.evaluate_models import evaluate
from snaketune.evaluation.evaluated_models import measure_each
from snaketune.experiment.resolved import read_resolved
from snaketune.export.export_adapter import export_adapter
from snaketune.export.merge import merge
from snaketune.export.model_folder import record_of_checkpoint
from snaketune.models.checkpoint import load_checkpoint
from snaketune.training.convert import convert
from tiny_run import Run
from xtuner_run import CONFIG, SupervisedFinetune, peft_model, write_pth

IDS = torch.arange(3, 100)[None]
SPEC = {
    "sources": [],
    "template": "auto",
    "loss_on": "assistant",
    "max_length": 160,
    "truncation": "right",
    "deduplicate": False,
    "pack": True,
    "heldout": 0.1,
}


class Converted(Run):
    """An experiment converted from a checkpoint."""

    def __init__(self, folder, base, source, **config) -> None:
        super().__init__(folder, base, folder / "data", **config)
        text = self.resolved.read_text()
        self.resolved.write_text(text.replace("convert_from: null", f"convert_from: {source}"))
        self.source = source

    def convert(self) -> "Converted":
        convert(read_resolved(self.resolved), self.base, self.source, self.output)
        return self


@pytest.fixture(scope="module")
def lora(base):
    return peft_model(base)


@pytest.fixture
def make(base, tmp_path):
    def make(weights, name="converted", config=CONFIG, **settings) -> Converted:
        source = write_pth(tmp_path / "iter_500.pth", weights, config)
        method = {"alpha": 8, "dropout": 0.0} | settings.pop("method", {})
        return Converted(tmp_path / name, base, source, method=method, **settings)

    return make


def test_plain_peft_gives_the_trained_logits(make, lora, base):
    adapter = make(lora.state_dict()).convert().export()
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with torch.no_grad():
        assert torch.equal(plain(IDS).logits, lora.llm(IDS).logits)
        without = AutoModelForCausalLM.from_pretrained(base)(IDS).logits
        assert (without - plain(IDS).logits).std() > 0.1 * without.std()


def test_full_fine_tune_merges_exactly(make, base, tmp_path):
    torch.manual_seed(3)
    network = AutoModelForCausalLM.from_pretrained(base)
    for parameter in network.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    run = make(SupervisedFinetune(network).state_dict(), method={"name": "full"}).convert()
    merge(base, run.output / "last.pth", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        assert torch.equal(merged(IDS).logits, network(IDS).logits)


def test_the_folder_tells_what_was_converted(make, lora):
    run = make(lora.state_dict(), train_id="cafe").convert()
    told = read_json(run.output / "train.json")
    assert (told["train_id"], told["iterations"]) == ("cafe", 500)
    assert told["converted_from"] == "iter_500.pth"
    about = load_checkpoint(run.output / "iter_500.pth")["about"]
    assert about["template"]["name"] == "auto"
    assert about["template"]["end_token_ids"] == [2]
    assert (about["method"]["r"], about["method"]["alpha"]) == (4, 8)
    assert "q_proj" in about["method"]["target_modules"]
    assert read_resolved(run.output / "resolved.yaml").train_id == "cafe"


def test_another_checkpoint_sets_the_earlier_one_aside(make, lora):
    before = make(lora.state_dict()).convert()
    weights = {name: 2 * tensor for name, tensor in lora.state_dict().items()}
    after = make(weights).convert()
    assert before.output == after.output
    assert all(
        torch.equal(tensor, 2 * old)
        for tensor, old in zip(after.adapter().values(), lora.state_dict().values(), strict=True)
    )
    [aside] = (after.output / "superseded").iterdir()
    assert load_checkpoint(aside / "iter_500.pth")["weights"].keys() == after.adapter().keys()


def test_a_refused_checkpoint_leaves_nothing_behind(make, lora):
    run = make(lora.state_dict(), method={"r": 8})
    with pytest.raises(UserError, match="its rank is 4, the method says r: 8"):
        run.convert()
    assert not run.output.exists()


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        ("", "does not tell LoRA's alpha; method.alpha: 8 is believed"),
        (CONFIG, "was trained with template default, this experiment has template: auto"),
    ],
)
def test_what_cannot_be_known_is_warned_of(make, lora, caplog, config, warning):
    make(lora.state_dict(), config=config).convert()
    assert warning in caplog.text


def test_the_report_needs_no_data(make, lora, base, tmp_path):
    run = make(lora.state_dict(), prompts=["Say 3"]).convert()
    prepare(DataSpec.from_key(SPEC), base, run.data)
    merged = tmp_path / "merged"
    merge(base, run.export(), merged)
    resolved = read_resolved(run.resolved)
    evaluate(resolved, base, merged, run.data, run.output, tmp_path / "eval", tmp_path)
    report = read_json(tmp_path / "eval" / "report.json")
    assert report["heldout"]["merged"]["loss"] is None
    assert report["answers"][0]["prompt"] == "Say 3"
    page = (tmp_path / "eval" / "report.html").read_text()
    assert re.search(r"Converted from.*iter_500.pth, iteration 500", page, re.DOTALL)
    assert "Training time" not in page


def test_its_checkpoint_is_measured_beside_base_and_merged(make, lora, base):
    converted = make(lora.state_dict()).convert()
    last = converted.output / "last.pth"
    record = record_of_checkpoint(last, load_checkpoint(last))

    def logits(_, model):
        with torch.no_grad():
            return model(IDS).logits

    found = measure_each(base, base, record, converted.output, torch.float32, logits)
    assert list(found) == ["base", "iter_500", "merged"]
    with torch.no_grad():
        torch.testing.assert_close(found["iter_500"], lora.llm(IDS).logits, rtol=0, atol=1e-4)
    assert (found["base"] - found["iter_500"]).std() > 0.1 * found["base"].std()


def test_the_model_card_says_that_it_was_converted(make, lora, base, tmp_path):
    run = make(lora.state_dict()).convert()
    resolved = read_resolved(run.resolved)
    resolved.values.update(sources=[], base={"source": "./tiny", "license": ""})
    export_adapter(run.output / "last.pth", base, tmp_path / "adapter", resolved)
    card = (tmp_path / "adapter" / "README.md").read_text()
    told = "| trained | with XTuner up to iteration 500, converted from `iter_500.pth` |"
    assert told in card
    assert "epochs" not in card
    assert str(tmp_path) not in card + (tmp_path / "adapter/snaketune.json").read_text()


def test_training_goes_on_from_it(make, lora, base, data, tmp_path, run):
    from snaketune.training.train_run import train

    first = make(lora.state_dict()).convert().output / "last.pth"
    method = {"alpha": 8, "dropout": 0.0, "start_from": "converted"}
    further = run(method=method, lr=1e-9)
    train(read_resolved(further.resolved), base, data, further.output, first)
    expected = load_checkpoint(first)["weights"]
    for name, tensor in further.adapter().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


def test_a_converted_experiment_is_not_trained(make, lora):
    run = make(lora.state_dict())
    with pytest.raises(UserError, match=r"is converted from .*iter_500.pth, not trained"):
        run.train()
