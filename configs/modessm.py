"""MODE-SSM: selective state-space layers trained in stages with CTC and RNN-T.

python -m experiments.train --config=configs/modessm.py --config.data.root=DATA --workdir=RUN

Stages (`stages.order`; each is set by `--config.stages.<name>.<key>`): CTC alone; the transducer
alone, on an encoder that stays as it is, so that the two costs meet on one scale; CTC and RNN-T;
with them a latent speaking mode, learned without labels; and the flow bridge alone, which learns to
denoise the features of bad electrodes. Variants, after a colon:

(none)   The recipe for T15, 46 million parameters. Meant for large GPUs or TPUs. Not trained yet,
         so there is no result.
small    A size for two CPU cores and fast speech. Spoken digits: val PER of CTC 0.52 to 0.63 %, of
         RNN-T 0.52 to 0.60 % (three seeds); 1,400 steps, 20 to 26 minutes on one core of a busy
         machine.
demo     A size for two CPU cores and simulated data of T15's shape: val PER of CTC 4.26 to 5.38 %,
         of RNN-T 4.01 to 4.95 % (three seeds); 930 steps, 26 to 29 minutes on one core of a busy
         machine.
stream80 A recipe that streams: it needs no bin later than 80 ms after a frame. Also stream0 and
         stream160, and all three of a smaller size: small+stream80, demo+stream0, and so on.
         docs/streaming.md has what they wait for. Not trained yet.

Only `demo` is set to find modes: trials tied by block, batches of one session, and a weight of 0.04
for the objective "mode". In the others that weight is too small beside the likelihoods to find any;
they are for recordings that may have none. The results above are of runs in which that objective
was divided by frames like the likelihoods, with weights of 3 and 0.1: the same but for the number
of frames of each trial, 75 on average.
"""

from ml_collections import ConfigDict

from configs import common

CTC_AND_RNNT = {"phoneme": 0.3, "rnnt": 1.0}
# Parts of the model that join later.
TRANSDUCER, MODE, FLOW = ("transducer/*",), ("mode/*", "film/*"), ("flow/*",)


def get_config(variant: str = "") -> ConfigDict:
    """The recipe named by `variant`: "", "small", "demo", "stream80", "small+stream80", ..."""
    return common.varied(full(), variant, stream, small=small, demo=demo)


def stage(
    steps: int,
    weights: dict[str, float],
    peak_lr: float,
    warmup_steps: int,
    freezes: tuple[str, ...] = (),
    trains: tuple[str, ...] = ("*",),
    select_by: str = "rnnt_per",
) -> ConfigDict:
    """A stage at a rate that falls to a hundredth; its best model is the lowest in `select_by`."""
    return ConfigDict(
        {
            "steps": steps,  # updates, at most
            "weights": weights,  # of the objectives; one without a weight is not computed
            "peak_lr": peak_lr,  # learning rate after the warm-up
            "end_lr": peak_lr / 100,  # learning rate of the stage's last step, on a cosine
            "warmup_steps": warmup_steps,  # over which the learning rate grows linearly
            "trains": trains,  # parameters that may change: patterns of paths in parameters.txt
            "freezes": freezes,  # of these, the parameters that stay as they are
            "patience": 0,  # evaluations without a better select_by that end the stage; 0: never
            "select_by": select_by,  # the best model is the lowest in this error rate
        }
    )


def full() -> ConfigDict:
    """Full size, for T15."""
    return ConfigDict(
        {
            "data": common.data(),
            "init": common.init(),
            "augment": common.augment(),
            "corruption": {
                "dropped": 0.2,  # probability that a channel is zero for a whole trial
                "jitter": 2,  # most bins that a channel is shifted by for a whole trial
                "noise": 0.5,  # deviation of noise, drawn for each bin and channel
            },
            "model": {
                "name": "modessm",  # the model; choose the other by its own config file
                "smoothing": 2.0,  # deviation of the Gaussian filter, in bins; 0: none
                "gate": 32,  # hidden width of the channel gate
                "session": "affine",  # adaptation to the session: "affine", "layernorm" or "none"
                "stem": 7,  # kernel of the first, depthwise convolution, in bins
                "patch": 14,  # kernel of the strided convolution, in bins
                "stride": 4,  # bins per frame
                "d": 512,  # width of the encoder
                "layers": 8,  # state-space layers
                "upper": 2,  # how many of them depend on the mode
                "heads": 16,  # of each state-space layer
                "state": 64,  # size of the state of each feature, N of Mamba-2
                "expand": 2,  # width within a state-space layer, as a multiple of d
                "kernel": 4,  # of the convolutions in these layers and in the bridge, in frames
                "modes": 2,  # number of latent speaking modes
                "flow": 2,  # layers of the flow bridge
                "predictor": "stateless",  # of the transducer: "stateless" (two labels) or "lstm"
                "joint": 512,  # width of the joint network
                "dropout": 0.2,  # probability that a feature is dropped for a whole trial
                "stochastic_depth": 0.1,  # of skipping the last layer; less for earlier ones
                "head_scale": 1.0,  # factor of the initial weights of the CTC head
                "causal": False,  # whether the model can stream: layers run in one direction
                "lookahead": 0,  # bins after a frame that a causal model needs, at most
                "remat": "blocks",  # what training computes again to save memory: "blocks", "dots"
                "dtype": "bfloat16",  # of the computation; parameters and losses are float32
            },
            "objective": {
                # each trial's costs are divided by its "frames" or "labels"; or "none", "seed_rule"
                "normalize_by": "frames",
                "tie_modes": False,  # whether the trials of a block share their speaking mode
            },
            "optimizer": {
                "clip_norm": 1.0,  # greatest global norm of the gradient
                "weight_decay": 1e-3,  # of AdamW; not of biases, norms and offsets
                "b1": 0.9,  # decay of AdamW's first moment
                "b2": 0.999,  # decay of AdamW's second moment
                "eps": 1e-8,  # added to the root of AdamW's second moment
                "session_rate": 1.0,  # factor of the learning rate of the session layers
                "decay_sessions": True,  # whether weight decay includes the session layers
            },
            "training": common.training(),
            "guard": common.guard(),
            "stages": {
                "order": ("ctc_warmup", "transducer", "joint", "mode", "flow"),  # names, as trained
                "ctc_warmup": stage(
                    40_000,
                    {"phoneme": 1.0},
                    5e-4,
                    4_000,
                    (*TRANSDUCER, *MODE, *FLOW),
                    select_by="per",
                ),
                "transducer": stage(10_000, {"rnnt": 1.0}, 5e-4, 1_000, trains=TRANSDUCER),
                "joint": stage(70_000, CTC_AND_RNNT, 5e-4, 2_000, (*MODE, *FLOW)),
                "mode": stage(20_000, {**CTC_AND_RNNT, "mode": 0.001}, 1e-4, 1_000, FLOW),
                "flow": stage(
                    10_000,
                    {**CTC_AND_RNNT, "flow": 0.05},
                    5e-4,
                    500,
                    trains=FLOW,
                    select_by="mended_rnnt_per",
                ),
            },
        }
    )


def small(config: ConfigDict) -> None:
    """Two CPU cores, fast speech."""
    config.update(common.small())
    config.update(
        {
            "data": {"buckets": 2},
            "model": {
                "smoothing": 0.0,
                "gate": 16,
                "patch": 8,
                "stride": 2,
                "d": 96,
                "layers": 4,
                "upper": 1,
                "heads": 4,
                "state": 16,
                "joint": 128,
                "dropout": 0.1,
                "stochastic_depth": 0.0,
                "head_scale": 0.1,
                "remat": "none",
                "dtype": "float32",
            },
        }
    )
    rates = {"peak_lr": 3e-3, "end_lr": 3e-5, "warmup_steps": 50}
    later = {"peak_lr": 1e-3, "end_lr": 1e-5, "warmup_steps": 20}
    config.update(
        {
            "stages": {
                "ctc_warmup": {"steps": 400, **rates},
                "transducer": {"steps": 100, **rates},
                "joint": {"steps": 600, **rates},
                "mode": {"steps": 100, **later},
                "flow": {"steps": 200, **later},
            }
        }
    )


def demo(config: ConfigDict) -> None:
    """Two CPU cores, simulated data of 512 channels at the speed of T15."""
    small(config)
    config.update(
        {
            # Without labels a mode is what blocks of a session differ in.
            "data": {"root": "runs/simulated", "sessions_per_batch": 1},
            "objective": {"tie_modes": True},
            "model": {"smoothing": 1.0, "stride": 4, "patch": 14, "head_scale": 1.0},
            "stages": {
                "ctc_warmup": {"steps": 320},
                "transducer": {"steps": 160},
                "joint": {"steps": 200},
                # With 0.001 it is too small beside the likelihoods, and no mode is found.
                "mode": {"steps": 150, "weights": {"mode": 0.04}},
                "flow": {"steps": 100},
            },
        }
    )


def stream(config: ConfigDict, lookahead: int) -> None:
    """A look-ahead of so many bins, by the strided convolution."""
    model = config.to_dict()["model"]
    patch = max(model["patch"], model["stride"] + lookahead)
    config.update({"model": {"causal": True, "lookahead": lookahead, "patch": patch}})
