"""The study file is read strictly: what does not fit is named, with the nearest that does."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import prepare
from experiments.common.study import (
    ModelSettings,
    Study,
    analysed_budgets,
    budget_in_macs,
    parse,
    pruningnet_recipe,
    read,
    recipe,
)
from experiments.common.study_file import main as print_value
from experiments.common.study_file import read_study_file
from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.common.validated import validated
from graphpruning.network.zoo import build
from graphpruning.pruningnet.conditionings import CONDITIONINGS
from graphpruning.search import group_norm

ROOT = Path(__file__).parents[2]
DESK = ROOT / "studies" / "desk.yaml"


def smoke(changes: dict[str, Any]) -> dict[str, Any]:
    """The smallest study, whose images are generated, with other values."""
    return changed(changes, ROOT / "studies/smoke.yaml")


def changed(changes: dict[str, Any], study: Path = DESK) -> dict[str, Any]:
    """The desk study with other values at dotted paths; a key that is not there yet is added."""
    # aliases become copies
    raw: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(study.read_text())))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = raw
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return raw


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_committed_studies_are_whole_and_fit_on_a_screen(study: Path) -> None:
    found = read(study)
    assert isinstance(found, Study) and found.study == study.stem
    methods.check_lists(found.searches)
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
        ("data.preprocessing.flip", 1, "bool is expected"),
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
        (
            "data.preprocessing.size",
            0,
            "data: preprocessing: size is 0, must be at least 1 and at most",
        ),
        ("data.preprocessing.resize", -1, "data: preprocessing: resize is -1, must be at least 1"),
        ("data.preprocessing.resize", 32, "resize and smallest_area need a size"),
        ("data.preprocessing.smallest_area", 0.5, "resize and smallest_area need a size"),
        ("data.workers", -1, "data: workers: -1 does not lie between 0"),
        ("data.recalibration_images", 2001, "2001 does not lie between 1 and 2000"),
        ("seeds", ["0,1"], "0,1"),
        ("methods", ["amc"], "`methods` and the lists under `searches`"),
        ("searches.bases", [], "searches: unknown key 'bases'; did you mean 'base'"),
        ("pruningnet.conditionings", ["graph", "none"], "metapruning needs the PruningNet 'block'"),
        ("analysis.conditionings", ["blok"], "'blok' is not among pruningnet: conditionings"),
        (
            "analysis.conditionings",
            ["none", "none"],
            "analysis: conditionings: 'none' stands twice",
        ),
        ("analysis.conditionings", [], "analysis: conditionings: the list is empty"),
        ("again", {"methods": ["amc"], "trainings": []}, "again: one list is empty: fill both"),
        ("again", {"methods": [], "trainings": [1]}, "again: one list is empty: fill both"),
        ("again", {"methods": ["amc"]}, "again: key 'trainings' is missing"),
        (
            "again",
            {"methods": ["amcc"], "trainings": [1]},
            "again: methods: 'amcc' is not among the study's methods; did you mean 'amc'",
        ),
        (
            "again",
            {"methods": ["amc"], "trainings": [2, 0]},
            "again: trainings[1]: 0 does not lie between 1",
        ),
        ("again", {"methods": ["amc"], "trainings": [1, 1]}, "again: trainings: '1' stands twice"),
        ("seeds", [], "seeds: the list is empty"),
        ("models", [], "models: the list is empty"),
        (
            "data.preprocessing.mean",
            [],
            "mean and std need one value a channel, not [] and [0.353]",
        ),
        ("data.seed", -1, "data: seed: -1 does not lie between 0 and 9223372036854775807"),
        ("data.seed", 2**63, "data: seed: 9223372036854775808 does not lie between 0"),
        ("data.seed", -(10**400), "data: seed: "),
        ("base.seed", 0, "base: unknown key 'seed'"),
        ("seeds", ["-1"], "seeds: '-1'"),
        ("seeds", [-1], "seeds: '-1'"),
        (
            "seeds",
            [10**19],
            "seeds[0]: 10000000000000000000 does not lie between 0 and 9223372036854775807",
        ),
        ("seeds", ["0+1"], "seeds[0]: int is expected, not '0+1'"),
        ("seeds", [0, 1, 0], "seeds: '0' stands twice"),
        ("seeds", [0.5], "seeds[0]: int is expected, not 0.5"),
        ("seeds", ["\u00b2"], "seeds: '\u00b2'"),
        ("models", ["resnet20", "resnet20"], "models: 'resnet20' stands twice"),
        ("budgets", [0.5, "0.5"], "budgets: '0.5' stands twice"),
        ("methods", ["amc", "amc"], "methods: 'amc' stands twice"),
        ("pruningnet.conditionings", ["graph", "block", "none", "graph"], "'graph' stands twice"),
        ("threads", 1_000_000, "threads: 1000000 does not lie between 1 and 1024"),
        ("data.preprocessing.pad", "1e30", "preprocessing: pad: int is expected, not '1e30'"),
        ("data.preprocessing.pad", 10**30, "pad is 1000000000000000000000000000000, must be at"),
        ("base.recipe.lr", 10**400, "is no finite number"),
        ("base.recipe.lr", float("inf"), "lr: inf is no finite number"),
        ("base.recipe.epochs", float("nan"), "epochs: nan is no finite number"),
        ("search.evolution.mutation_probability", float("nan"), "nan is no finite number"),
        ("search.evolution.mutation_probability", 7, "7.0 does not lie between 0 and 1"),
        ("search.evolution.parents", 13, "population: 12 does not lie between 13 and"),
        ("search.ddpg.noise_decay", 1.5, "noise_decay: 1.5 does not lie between 0 and 1"),
        ("search.ddpg.warmup_episodes", 40, "ddpg: warmup_episodes: 40 does not lie between 1 and"),
        ("search.agent.warmup_episodes", 0, "agent: warmup_episodes: 0 does not lie between 1 and"),
        ("search.agent.trust", 2, "agent: trust: 2.0 does not lie between 0 and 1"),
        ("search.agent.prior", 0, "agent: prior: 0.0 does not lie between 1e-06 and"),
        ("search.agent.scale", -1, "agent: scale: -1.0 does not lie between 0 and"),
        ("search.predictor.warmup", 1, "predictor: warmup: 1 does not lie between 2 and"),
        ("search.predictor.pool", 0, "predictor: pool: 0 does not lie between 1 and"),
        ("search.predictor.scale", -1, "predictor: scale: -1.0 does not lie between 0 and"),
        ("search.predictor.trust", 2, "predictor: trust: 2.0 does not lie between 0 and 1"),
        ("search.predictor.kind", "rige", "'rige' is unknown; did you mean 'ridge'?"),
        (
            "search.evolution.population",
            40,
            "population: 40 random candidates are all that a search",
        ),
        ("search.agent.grid", 1, "agent: grid: 1 does not lie between 2 and"),
        ("search.agent.noise_decay", 0.9, "search: agent: unknown key 'noise_decay'"),
        ("space.smallest", 0, "params.yaml: space: smallest is 0.0, must be above 0"),
        ("space.ratios", [0.5], "params.yaml: space: either divisor or ratios must be given"),
        ("space.divisor", 0, "params.yaml: space: divisor is 0, must be at least 1"),
        ("space.filled", 1.1, "params.yaml: space: filled is 1.1, must be from 0 to 1"),
        ("space", {"divisor": None, "ratios": [0.5, 1.5]}, "space: ratios are [0.5, 1.5], must be"),
        ("data.preprocessing.std", [0.0], "preprocessing: std is [0.0], must be above 0"),
        ("data.root", "a\0b", "data: root: 'a\\x00b' is no path"),
        ("title", "two\nlines", "title: 'two\\nlines' is no line of text"),
        ("networks.resnet20.budgets", {10**400: 0.5}, "is no finite number"),
        ("correlation.images", 3, "correlation: images: 3 are too few to fit one half and score"),
        ("budgets", [0.3333333], "budgets: write 0.333333 instead of 0.3333333"),
        ("budgets", [0.5, 1.0], "budgets: write 1 instead of 1.0"),
        ("reconstruction.points", 0, "points: 0 does not lie between 1 and"),
        ("final.trainings", 0, "final: trainings: 0 does not lie between 1 and"),
        ("final.second", {"initial": "scrath"}, "final: second: "),
        ("final.second", {"initial": "scratch"}, "final: second: key 'recipe' is missing"),
        ("analysis.budgets", [], "analysis: budgets: the list is empty"),
        ("analysis.budgets", [0.5, "0.5"], "analysis: budgets: '0.5' stands twice"),
        ("analysis.budgets", ["large"], "networks: resnet20: budget 'large' is neither a share"),
        ("pruningnet.recipes", {"grap": {}}, "pruningnet: recipes: grap: key 'epochs' is missing"),
        ("final.distillation", {"weight": 1.5}, "distillation: weight: 1.5 does not lie between 0"),
        ("final.distillation", {"temperature": 0}, "temperature: 0.0 does not lie between 0.01"),
        ("final.distillation", {"wait": 1}, "distillation: unknown key 'wait'; did you mean 'wei"),
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
    sizes = {"data.preprocessing.size": 256, "data.preprocessing.resize": 224}
    with pytest.raises(UserError, match="resize is 224, must be at least the size, 256"):
        parse(changed(sizes))


def test_optional_values_may_be_null_or_left_out() -> None:
    data = parse(changed({"data.preprocessing.size": None})).data
    how = data.preprocessing
    assert (how.size, how.resize, how.smallest_area, data.workers) == (None, None, None, 0)
    given = {"size": 224, "resize": 256, "smallest_area": 0.08, "pad": 0}
    how = parse(
        changed({f"data.preprocessing.{key}": v for key, v in given.items()})
    ).data.preprocessing
    assert (how.size, how.resize, how.smallest_area) == (224, 256, 0.08)
    assert parse(changed({"networks.resnet20": {}})).networks["resnet20"] == ModelSettings()


def test_a_model_has_its_own_recipe_or_the_studys() -> None:
    own = {**yaml.safe_load(DESK.read_text())["base"]["recipe"], "epochs": 7}
    study = parse(changed({"networks.resnet20.recipes.final": own}))
    assert recipe(study, "final", "resnet20").epochs == 7
    assert recipe(study, "base", "resnet20") == study.base.recipe
    assert recipe(study, "pruningnet", "resnet20") == study.pruningnet.recipe


def test_a_pruningnet_has_its_own_recipe_or_the_models() -> None:
    own = {**yaml.safe_load(DESK.read_text())["pruningnet"]["recipe"], "epochs": 1.5}
    study = parse(changed({"pruningnet.recipes": {"graphpruning-plus": own}}))
    assert pruningnet_recipe(study, "resnet20", "graphpruning-plus").epochs == 1.5
    assert pruningnet_recipe(study, "resnet20", "graph") == study.pruningnet.recipe
    with pytest.raises(UserError, match="'grap' is not among pruningnet: conditionings; did you"):
        parse(changed({"pruningnet.recipes": {"grap": own}}))


def test_the_analysis_has_its_own_budgets_or_the_studys() -> None:
    assert analysed_budgets(parse(changed({}))) == (0.5, 0.25)
    study = parse(
        changed({"analysis.budgets": [0.5, "large"], "networks.resnet20.budgets": {"large": "4M"}})
    )
    assert analysed_budgets(study) == (0.5, "large") and study.budgets == (0.5, 0.25)


def test_a_second_kind_of_final_training_has_a_recipe_of_its_own() -> None:
    short = {**yaml.safe_load(DESK.read_text())["final"]["recipe"], "epochs": 0.5}
    second = {"initial": "scratch", "recipe": short}
    study = parse(changed({"final.second": second, "final.trainings": 3}))
    assert recipe(study, "second", "resnet20").epochs == 0.5
    assert recipe(study, "final", "resnet20") == study.final.recipe
    study = parse(
        changed(
            {"final.second": second, "networks.resnet20.recipes.second": {**short, "epochs": 3}}
        )
    )
    assert recipe(study, "second", "resnet20").epochs == 3


def test_the_fashion_study_is_the_one_that_decides() -> None:
    """Its searches are scaled as the library scales them, and plus costs what the others cost."""
    study = read(ROOT / "studies/fashion.yaml")
    assert study.seeds == tuple(range(8)) and study.final.trainings == 2
    assert analysed_budgets(study) == (0.5, *study.budgets)
    scaled = methods.SearchSettings.scaled(study.search.evaluations)
    assert study.search.evolution == scaled.evolution
    plus = pruningnet_recipe(study, "resnet20", "graphpruning-plus")
    passes = CONDITIONINGS["graphpruning-plus"].passes
    assert plus.epochs * passes == pytest.approx(study.pruningnet.recipe.epochs, rel=0.02)
    base, final, second = (recipe(study, part, "resnet20") for part in ("base", "final", "second"))
    assert (base.epochs, final.epochs, second.epochs) == (8, 4, 2)
    assert replace(final, epochs=base.epochs) == base


def test_a_search_needs_images_to_judge_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    context = prepare.STAGE._context(parse(changed({"data.search_images": 0})), {})
    with pytest.raises(UserError, match="search_images: 0, but candidates are judged on them"):
        prepare.prepare(context)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"final.recipe.batch_size": 5000}, "final of resnet8: recipe: batch_size 5000 does not"),
        ({"analysis.recipe.images_per_epoch": 601}, "analysis of resnet8: recipe: batch_size"),
        ({"pruningnet.recipe.batch_size": 501}, "pruningnet (graph) of resnet8: recipe: "),
    ],
)
def test_a_recipe_that_does_not_fit_the_images_is_refused_before_anything_is_trained(
    changes: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(says)):
        prepare.prepare(prepare.STAGE._context(parse(smoke(changes)), {}))


def test_a_network_that_a_method_cannot_take_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise UserError("Torch-Pruning cannot follow this network")

    raw = smoke({})
    raw["methods"].append("group-norm")
    raw["searches"]["base"].append("group-norm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(group_norm, "Ranking", cannot)
    with pytest.raises(UserError, match="Torch-Pruning cannot follow"):
        prepare.prepare(prepare.STAGE._context(parse(raw), {}))


def test_five_best_of_five_classes_judge_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    context = prepare.STAGE._context(parse(smoke({"search.reward": "top5"})), {})
    monkeypatch.setattr(prepare, "TOP5", 10)  # of the study's ten
    with pytest.raises(UserError, match="reward: top5, but with 10 classes every candidate would"):
        prepare.prepare(context)


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match="not YAML") as refusal:
        read(tmp_path / "params.yaml")
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
        read_study_file(path)
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
        methods.check_lists({"graph": ("amc",)})


def test_budgets() -> None:
    network = ModelSettings(budgets={"large": "3.0G", "small": 0.25})
    assert budget_in_macs(network, 0.5, 1000) == 500
    assert budget_in_macs(network, "0.25", 1000) == 250
    assert budget_in_macs(network, "316M", 568_740_352) == 316_000_000
    assert budget_in_macs(network, "1.5G", 4_089_184_256) == 1_500_000_000
    assert budget_in_macs(network, "large", 4_089_184_256) == 3_000_000_000
    with pytest.raises(UserError, match=r"budget '3.0G' is more than the 2,999,999,999 MACs of"):
        budget_in_macs(network, "large", 2_999_999_999)
    assert budget_in_macs(network, "small", 1000) == 250


def test_a_method_of_its_own_source_needs_the_pruningnet_of_its_name() -> None:
    listed = yaml.safe_load(DESK.read_text())["methods"]
    raw = changed(
        {"methods": [*listed, "gat"], "searches.own": ["constant", "graphpruning-plus", "gat"]}
    )
    with pytest.raises(UserError, match="own: gat needs the PruningNet 'gat': add it"):
        parse(raw)


def test_a_study_is_what_its_file_says_and_nothing_is_taken_for_something_else() -> None:
    study = parse(changed({"seeds": [3, 0], "threads": 2, "budgets": [1, "0.3M"]}))
    assert (study.seeds, study.threads, study.budgets) == ((3, 0), 2, (1.0, "0.3M"))
    assert study.data.preprocessing.mean == (0.286,)
    assert study.networks["resnet20"].options == {"width": 16, "stem_stride": 2}
    for value in ("1", 1.0, True, None, [1]):
        with pytest.raises(UserError, match="search: evaluations: int is expected"):
            parse(changed({"search.evaluations": value}))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "a mapping is expected, not None"),
        ([], "a mapping is expected, not []"),
        ("study: desk", "a mapping is expected, not 'study: desk'"),
        ({}, "key 'study' is missing"),
        ({True: 1}, "the key True is no name"),
        ({(1, 2): 1}, "the key (1, 2) is no name"),
    ],
)
def test_what_is_no_study_at_all(value: Any, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        validated(Study, value, "params.yaml")
    assert str(refusal.value).removeprefix("params.yaml: ") == says


def test_a_section_that_checks_itself_says_where_it_stands() -> None:
    """Sections within sections too, and one of several models."""
    bad = yaml.safe_load(DESK.read_text())["base"]["recipe"] | {"warmup_epochs": 3}
    says = r"params.yaml: networks: resnet20: recipes: final: recipe: warmup_epochs is 3.0, must be"
    with pytest.raises(UserError, match=says):
        parse(changed({"networks.resnet20.recipes.final": bad}))


def test_one_value_is_printed_for_the_makefile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(DESK.read_text())
    monkeypatch.chdir(tmp_path)
    assert print_value(["study"]) == print_value(["data.name"]) == 0
    assert capsys.readouterr().out == "desk\nfashion_mnist\n"
    assert print_value(["dat"]) == print_value([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == [
        "error: params.yaml has no 'dat'",
        "usage: python -m experiments.common.study_file KEY",
    ]
