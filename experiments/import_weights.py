"""Makes a run of the weights of one of the field's models.

    python -m experiments.import_weights --from nejm --checkpoint best_checkpoint \\
        --args args.yaml --data_root DATA --out RUN

The run evaluates, decodes and is exported like one that was trained here. The models are the
official baselines of Brain-to-Text '25 (nejm) and '24 (neural_seq_decoder), and the time-masked
Transformer (brainaudio). The checkpoint is what their code saved with torch, for which this needs
`pip install '.[import]'`, or the same arrays under the same names as .npz. Files that could run a
program when they are read are refused.

The settings are the file of arguments that their code saved beside it: YAML, JSON or a pickle of
plain values. Without it, the baselines are taken to have the strides and the smoothing of their
release; the Transformer needs it. The sessions have the names in the settings, and else those of
the folders under the data root, in alphabetical order.
"""

import argparse
from pathlib import Path

from absl import logging

from configs import gru, transformer
from modessm_jax.data.roots import session_names
from modessm_jax.official.files import read_settings, read_weights
from modessm_jax.official.run import write_run
from modessm_jax.official.weights import SOURCES, WeightsError

RECIPES = {"gru": gru, "transformer": transformer}
VARIANTS = {"neural_seq_decoder": "t12"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.import_weights")
    parser.description, parser.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--from", dest="source", choices=list(SOURCES), required=True)
    parser.add_argument("--checkpoint", type=Path, required=True, help="torch's file, or .npz")
    parser.add_argument("--args", type=Path, help="the settings that were saved beside it")
    parser.add_argument("--data_root", type=Path, help="where the recordings are")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run to make")
    options = parser.parse_args(arguments)
    logging.set_verbosity(logging.WARNING)
    try:
        settings = {} if options.args is None else read_settings(options.args)
        imported = SOURCES[options.source](read_weights(options.checkpoint), settings)
        names = imported.names
        if names is None:
            if options.data_root is None:
                raise WeightsError(
                    "the settings name no sessions: give --data_root, whose folders are named for "
                    "them"
                )
            names = session_names(options.data_root)
        recipe = RECIPES[imported.model["name"]].get_config(VARIANTS.get(options.source, ""))
        if options.data_root is not None:
            recipe.data.root = str(options.data_root)
        write_run(options.out, recipe.to_dict(), imported, names)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error
    print(f"{options.out}: {imported.model['name']}, {len(names)} sessions")


if __name__ == "__main__":
    main()
