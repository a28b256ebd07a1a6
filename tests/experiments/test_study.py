"""The study file is read strictly: what does not fit is named, with the nearest that does."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from experiments.common.study import (
    Conditioning,
    Network,
    Study,
    budget_in_macs,
    load,
    parse,
    recipe,
    seed_list,
)
from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.network.zoo import build
from graphpruning.pruningnet.aggregator import CONDITIONINGS

ROOT = Path(__file__).parents[2]
DESK = ROOT / "studies" / "desk.yaml"


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The desk study with other values at dotted paths; a key that is not there yet is added."""
    raw: dict[str, Any] = yaml.safe_load(DESK.read_text())
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = raw
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return raw


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_committed_studies_are_whole_and_fit_on_a_screen(study: Path) -> None:
    raw = load(study)
    assert raw["study"] == study.stem
    assert isinstance(parse(raw), Study)
    methods.check_places({k: tuple(v) for k, v in raw["searches"].items()})
    lines = study.read_text().splitlines()
    assert len(lines) <= 90 and lines[0].startswith("#")


def test_the_default_study_is_desk() -> None:
    assert (ROOT / "params.yaml").read_text() == DESK.read_text()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("budget", [0.5], "unknown key 'budget'; did you mean 'budgets'"),
        ("search.evaluation", 3, "unknown key 'evaluation'; did you mean 'evaluations'"),
        ("base.recipe.learning_rate", 1, "unknown key 'learning_rate'"),
        ("precision", "bf16", "'bf16' is unknown; did you mean 'bf16-mixed'"),
        ("pruningnet.conditionings", ["grap"], "did you mean 'graph'"),
        ("base.recipe.schedule", "cosin", "did you mean 'cosine'"),
        ("base.recipe.lr", -1, "lr is -1"),
        ("base.recipe.epochs", "three", "'three'"),
        ("search.evaluations", 4.5, "int is expected, not 4.5"),
        ("search.evaluations", True, "int is expected, not True"),
        ("data.flip", 1, "bool is expected"),
        ("models", "resnet20", "a list is expected"),
        ("models", ["resnet56"], "networks has no entry for the model 'resnet56'"),
        ("space", 4, "a mapping is expected"),
        ("budgets", [1.5], "1.5"),
        ("budgets", ["316X"], "316X"),
        ("budgets", ["nan"], "'nan' is neither a share"),
        ("budgets", ["infM"], "'infM' is neither a share"),
        ("budgets", ["large"], "networks: resnet20: budget 'large' is neither a share"),
        ("networks.resnet20.budgets", {"large": "3G"}, "'large' is not among the study's budgets"),
        ("networks.resnet20.budgets", {"0.5": "3X"}, "budget '3X' is neither a share"),
        ("networks.resnet20.width", 16, "networks: resnet20: unknown key 'width'"),
        ("networks.resnet20.weights", 1, "networks: resnet20: weights: str is expected, not 1"),
        ("networks.resnet20.recipes.bas", {}, "recipes: 'bas' is unknown; did you mean 'base'"),
        ("networks.resnet20.recipes.base", {}, "recipes: base: key 'epochs' is missing"),
        ("space.divisor", "8", "space: divisor: int is expected, not '8'"),
        ("space.ratios", [0.1, "half"], "space: ratios[1]: float is expected, not 'half'"),
        ("data.size", 0, "data: size: 0 does not lie between 1 and 8192"),
        ("data.resize", -1, "data: resize: -1 does not lie between 1 and"),
        ("data.smallest_area", 1.5, "data: smallest_area: 1.5"),
        ("data.workers", -1, "data: workers: -1 does not lie between 0"),
        ("data.recalibration_images", 2001, "2001 does not lie between 1 and 2000"),
        ("seeds", ["0,1"], "0,1"),
        ("methods", ["amc"], "`methods` and the lists under `searches`"),
        ("searches.bases", [], "searches: unknown key 'bases'; did you mean 'base'"),
        ("pruningnet.conditionings", ["graph", "none"], "metapruning needs the PruningNet 'block'"),
        ("analysis.conditionings", ["graph+blok"], "'blok' is not among pruningnet: conditionings"),
        ("analysis.conditionings", ["graph", "block"], "join them to one"),
        ("analysis.conditionings", [], "analysis: conditionings: the list is empty"),
        ("seeds", [], "seeds: the list is empty"),
        ("models", [], "models: the list is empty"),
        ("data.mean", [], "data: mean: the list is empty"),
        ("data.seed", -1, "data: seed: -1 does not lie between 0 and 9223372036854775807"),
        ("base.seed", 2**63, "base: seed: 9223372036854775808 does not lie between 0"),
        ("analysis.seed", -(10**400), "analysis: seed: "),
        ("seeds", ["-1"], "seeds: '-1'"),
        ("seeds", ["0+9999999999999999999"], "does not lie between 0 and 9223372036854775807"),
        ("seeds", ["0+1", "1"], "seeds: '1' stands twice"),
        ("seeds", ["\u00b2"], "seeds: '\u00b2'"),
        ("models", ["resnet20", "resnet20"], "models: 'resnet20' stands twice"),
        ("budgets", [0.5, "0.5"], "budgets: '0.5' stands twice"),
        ("methods", ["amc", "amc"], "methods: 'amc' stands twice"),
        ("pruningnet.conditionings", ["graph", "block", "none", "graph"], "'graph' stands twice"),
        ("threads", 1_000_000, "threads: 1000000 does not lie between 1 and 1024"),
        ("data.pad", "1e30", "data: pad: int is expected, not '1e30'"),
        ("data.pad", 10**30, "data: pad: 1000000000000000000000000000000 does not lie between"),
        ("base.recipe.lr", 10**400, "is no finite number"),
        ("base.recipe.lr", float("inf"), "lr: inf is no finite number"),
        ("base.recipe.epochs", float("nan"), "epochs: nan is no finite number"),
        ("search.evolution.mutation_probability", float("nan"), "nan is no finite number"),
        ("search.evolution.mutation_probability", 7, "7.0 does not lie between 0 and 1"),
        ("search.evolution.parents", 9, "population: 8 does not lie between 9 and"),
        ("search.agent.noise_decay", 1.5, "noise_decay: 1.5 does not lie between 0 and 1"),
        ("space.smallest", 0, "space: smallest: 0.0 is no share above 0"),
        ("space.ratios", [0.5, 1.5], "space: ratios[1]: 1.5 is no share"),
        ("space.divisor", 0, "space: divisor: 0 does not lie between 1 and"),
        ("space.filled", 1.1, "space: filled: 1.1 does not lie between 0 and 1"),
        ("data.std", [0.0], "data: std[0]: 0.0 is not above 0"),
        ("data.root", "a\0b", "data: root: 'a\\x00b' is no path"),
        ("title", "two\nlines", "title: 'two\\nlines' is no line of text"),
        ("networks.resnet20.budgets", {10**400: 0.5}, "is no finite number"),
        ("search.reconstruction.points", 0, "points: 0 does not lie between 1 and"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(path: str, value: Any, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(changed({path: value}))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("parent", "key"), [("search", "evaluations"), ("searches", "none"), ("analysis", "trained")]
)
def test_a_missing_key_is_named(parent: str, key: str) -> None:
    raw = yaml.safe_load(DESK.read_text())
    del raw[parent][key]
    with pytest.raises(UserError, match=f"{parent}: key '{key}' is missing"):
        parse(raw)


def test_a_size_does_not_exceed_what_it_is_cut_from() -> None:
    with pytest.raises(UserError, match="data: size: 256 does not lie between 1 and 224"):
        parse(changed({"data.size": 256, "data.resize": 224}))


def test_optional_values_may_be_null_or_left_out() -> None:
    data = parse(changed({"data.size": None})).data
    assert (data.size, data.resize, data.smallest_area, data.workers) == (None, None, None, 0)
    data = parse(changed({"data.size": 224, "data.resize": 256, "data.smallest_area": 0.08})).data
    assert (data.size, data.resize, data.smallest_area) == (224, 256, 0.08)
    assert parse(changed({"networks.resnet20": {}})).networks["resnet20"] == Network()


def test_a_study_may_end_after_the_correlation() -> None:
    keys = (
        "pruningnet.conditionings",
        "analysis.conditionings",
        "budgets",
        "seeds",
        "methods",
        "searches.graph",
        "searches.block",
        "searches.none",
        "searches.base",
    )
    study = parse(changed({key: [] for key in keys}))
    assert not any((study.budgets, study.seeds, study.methods, study.analysis.conditionings))


def test_a_model_has_its_own_recipe_or_the_studys() -> None:
    own = {**yaml.safe_load(DESK.read_text())["base"]["recipe"], "epochs": 7}
    study = parse(changed({"networks.resnet20.recipes.final": own}))
    assert recipe(study, "final", "resnet20").epochs == 7
    assert recipe(study, "base", "resnet20") == study.base.recipe
    assert recipe(study, "pruningnet", "resnet20") == study.pruningnet.recipe


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match="not YAML") as refusal:
        load(tmp_path / "params.yaml")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' stands twice"),
        ("a: {b: 1, b: 2}\n", "the key 'b' stands twice"),
        ("a: 2020-13-45\n", "is not YAML: month must be in 1..12"),
        ("a: " + "9" * 5000, "is not YAML"),
        ("[" * 1500 + "]" * 1500, "nested too deeply"),
        (
            "a: &a [1]\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n"
                for n in range(9)
            ),
            "more than 20,000 values",
        ),
        ("a: &a [*a]\n", "more than 20,000 values"),
        ("!!python/object/apply:os.system [true]\n", "is not YAML"),
        ("a: \x01\n", "is not YAML"),
    ],
)
def test_yaml_that_is_no_study(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        load(path)
    message = str(refusal.value)
    assert says in message and str(path) in message and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "options", [{"width": width} for width in (-8, 7.5, [8], 10**30, "8", None, True)]
)
def test_an_option_that_gives_no_network_is_refused_when_it_is_built(
    options: dict[str, Any],
) -> None:
    with pytest.raises(UserError) as refusal:
        build("resnet20", 10, 1, **options)
    assert "resnet20" in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_methods_name_the_nearest_and_their_source() -> None:
    with pytest.raises(UserError, match="did you mean 'metapruning'"):
        methods.method("meta-pruning")
    with pytest.raises(UserError, match="amc stands under 'graph'; its place is 'base'"):
        methods.check_places({"graph": ("amc",)})


def test_budgets_and_seeds() -> None:
    network = Network(budgets={"large": "3.0G", "small": 0.25})
    assert budget_in_macs(network, 0.5, 1000) == 500
    assert budget_in_macs(network, "0.25", 1000) == 250
    assert budget_in_macs(network, "316M", 568_740_352) == 316_000_000
    assert budget_in_macs(network, "1.5G", 4_089_184_256) == 1_500_000_000
    assert budget_in_macs(network, "large", 4_089_184_256) == 3_000_000_000
    with pytest.raises(UserError, match=r"budget '3.0G' is more than the 2,999,999,999 MACs of"):
        budget_in_macs(network, "large", 2_999_999_999)
    assert budget_in_macs(network, "small", 1000) == 250
    assert seed_list("0+1+2") == [0, 1, 2] and seed_list("7") == [7]


def test_a_study_may_name_every_conditioning_and_no_other() -> None:
    assert set(get_args(Conditioning)) == set(CONDITIONINGS)


def test_an_ablation_needs_the_pruningnet_of_its_name() -> None:
    raw = changed({"methods": [*load(DESK)["methods"], "gat"], "searches.ablations": ["gat"]})
    with pytest.raises(UserError, match="ablations: gat needs the PruningNet 'gat': add it"):
        parse(raw)
