"""Put the four IDX files of Fashion-MNIST where torchvision looks for them.

    python -m experiments.fetch_data [--from FOLDER] [--root data] [--study]

Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747; MIT licence): 60,000 training and 10,000
test images, 28 x 28 grey pixels, 10 classes. The sources are asked in turn, for the files that are
still missing; whatever the source, a file gets its name only once its SHA-256 is the expected one.

`--study` is the pipeline's first stage: it fetches what the study in params.yaml needs, and notes
it. Images other than Fashion-MNIST are the user's to bring.
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from http.client import HTTPException
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from experiments.common.study_file import PARAMS, check_names, read_study_file, root_folder
from graphpruning.common.errors import UserError, reason
from graphpruning.common.files import atomic, require_file, sum_of, write_json
from graphpruning.training.listing import FASHION_MNIST_FILES as FILES

COMMAND = "python -m experiments.fetch_data"
PACKAGE = "dataset-fashion-mnist"
SECONDS_TO_ANSWER = 20
LARGEST, BLOCK = 2**26, 2**20  # bytes: the largest file has 47 million
NOT_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)

Source = Callable[[Collection[str], Path], None]


class Unavailable(Exception):
    """A source cannot deliver; the message says in one line why. The next source is asked."""


def raw_folder(root: str | Path) -> Path:
    """Return the folder in which torchvision.datasets.FashionMNIST(root) expects the files."""
    return Path(root) / "FashionMNIST" / "raw"


def is_there(path: Path) -> bool:
    """Say whether `path` exists; a `UserError` if it does and holds other bytes than expected."""
    if not os.path.exists(path):  # a link to nothing is replaced
        return False
    require_hash(path, path.name, str(path), f"delete it and run `{COMMAND}` again")
    return True


def require_hash(path: Path, name: str, shown: str, remedy: str) -> None:
    """Raise a `UserError` unless `path` holds the bytes of the file `name`."""
    found = sum_of(path, f"`{COMMAND}`")
    if found != FILES[name]:
        raise UserError(f"{shown}: SHA-256 is {found}, expected {FILES[name]}; {remedy}")


def place(stream: BufferedIOBase, target: Path, origin: str) -> None:
    """Copy uncompressed bytes to `target` if they are the expected ones; else a `UserError`."""
    with atomic(target) as beside:
        with open(beside, "wb") as file:
            for _ in range(LARGEST // BLOCK):
                if not file.write(stream.read(BLOCK)):
                    break
            else:
                raise UserError(f"{origin}: more than {LARGEST:,} bytes, {target.name} has fewer")
        remedy = f"get the file elsewhere: `{COMMAND} --from FOLDER`"
        require_hash(beside, target.name, origin, remedy)


def from_folder(folder: Path, names: Collection[str], raw: Path) -> None:
    """Copy the files, plain or gzipped, from `folder` or the subfolders torchvision makes."""
    if not os.path.isdir(folder):
        raise Unavailable(f"{folder} is not a folder")
    for name in names:
        candidates = [
            subfolder / file
            for subfolder in (folder, folder / "raw", raw_folder(folder))
            for file in (name, f"{name}.gz")
        ]
        path = next(filter(os.path.isfile, candidates), None)
        if path is None:
            for other in filter(os.path.lexists, candidates):
                require_file(other, "who has the data set")
            raise Unavailable(f"{folder} holds neither {name} nor {name}.gz")
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
                place(stream, raw / name, str(path))
        except NOT_GZIP as error:
            raise UserError(
                f"{path}: not a whole gzip file ({error}), expected one that unpacks to SHA-256 "
                f"{FILES[name]}; get it again, or run `{COMMAND}` without --from"
            ) from None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({reason(error)})") from None


def from_mirrors(names: Collection[str], raw: Path) -> None:
    """Download the files from the addresses that torchvision itself uses."""
    from torchvision.datasets import FashionMNIST  # here, because importing it takes seconds

    for resource, _ in FashionMNIST.resources:
        name = resource.removesuffix(".gz")
        if name in names:
            download([mirror + resource for mirror in FashionMNIST.mirrors], raw / name)


def download(urls: Sequence[str], target: Path) -> None:
    """Fetch a gzipped file from the first address that answers and place it unpacked."""
    failures = []
    for url in urls:
        try:
            with urlopen(url, timeout=SECONDS_TO_ANSWER) as answer, gzip.open(answer) as stream:
                place(stream, target, url)
            return
        except (OSError, HTTPException, *NOT_GZIP) as error:
            failures.append(f"{url}: {reason(error)}")
    raise Unavailable("; ".join(failures))


def from_debian(names: Collection[str], raw: Path) -> None:
    """Unpack Debian's package, without installing it, in a temporary folder."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(["apt-get", "download", PACKAGE], folder, "root may have to run `apt-get update`")
            package = next(Path(folder).glob("*.deb"), Path("package"))
            run(["dpkg-deb", "-x", package.name, "unpacked"], folder, "the download may be damaged")
            from_folder(Path(folder, "unpacked/usr/share/datasets/fashion-mnist"), names, raw)
    except OSError as error:
        raise Unavailable(f"no temporary folder ({reason(error)})") from None


def run(command: Sequence[str], folder: str, hint: str) -> None:
    """Run a command quietly in `folder`; `Unavailable` with its last line if it fails."""
    try:
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30 * SECONDS_TO_ANSWER,
        )
    except FileNotFoundError:
        raise Unavailable(f"there is no {command[0]} here") from None
    except OSError as error:
        raise Unavailable(f"{command[0]} does not start ({reason(error)})") from None
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} did not finish in {error.timeout:.0f} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{command[0]} failed: {last} ({hint})") from None


def fetch(root: str | Path, folder: str | Path | None = None) -> None:
    """Bring all four files under `root`, asking `folder` (if given), the mirrors and Debian.

    Raises `UserError` for a file with other bytes than expected and when no source delivers.
    """
    raw = raw_folder(root)
    sources: list[tuple[str, Source]] = [
        ("torchvision's mirrors", from_mirrors),
        (f"Debian's package {PACKAGE}", from_debian),
    ]
    if folder is not None:
        named = Path(folder)
        sources.insert(0, (str(named), lambda names, raw: from_folder(named, names, raw)))

    tried = []
    missing = [name for name in FILES if not is_there(raw / name)]
    for label, source in sources:
        if not missing:
            break
        try:
            source(missing, raw)
            print(f"Fashion-MNIST: from {label}")
        except Unavailable as error:
            print(f"Fashion-MNIST: not from {label}: {error}", file=sys.stderr)
            tried.append(f"{label} ({error})")
        missing = [name for name in missing if not os.path.isfile(raw / name)]
    if missing:
        raise UserError(
            f"no source has {', '.join(missing)}; tried {'; '.join(tried)}; "
            f"name a folder that holds them: `{COMMAND} --from FOLDER`"
        )
    print(f"Fashion-MNIST: complete in {raw}")


def fetch_for_study(folder: str | Path | None = None) -> None:
    """Fetch the images of the study in params.yaml, and write data/fetched/STUDY.json."""
    raw = read_study_file(PARAMS)
    check_names(raw, str(PARAMS))
    data = raw.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("root"), str):
        raise UserError(f"{PARAMS}: data: name and root are expected")
    files: dict[str, str] = {}
    if data.get("name") == "fashion_mnist":
        fetch(root_folder(data["root"]), folder)
        files = FILES
    else:
        _require(data)
        print(f"{data.get('name')}: nothing to fetch")
    note = {"dataset": data.get("name"), "sha256": files}
    write_json(Path("data/fetched") / f"{raw['study']}.json", note)


def _require(data: Mapping[str, Any]) -> None:
    """Raise `UserError` without the files that DVC watches, for which it has a Python error."""
    files = data.get("files")
    if not isinstance(files, str) or os.path.exists(files):
        return
    if data.get("name") == "cifar10":
        from graphpruning.training.datasets import cifar10  # importing torch takes seconds

        cifar10(root_folder(data["root"]), train=True)  # says how to get what is missing
    raise UserError(f"{PARAMS}: data: files: there is no {files}: images are yours to bring")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument(
        "--from", dest="folder", help="a folder with the four files, plain or gzipped"
    )
    parser.add_argument("--root", default="data", help="where data sets live (default: data)")
    parser.add_argument("--study", action="store_true", help="what the study needs; note it")
    options = parser.parse_args(arguments)
    try:
        if options.study:
            fetch_for_study(options.folder)
        else:
            fetch(options.root, options.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
