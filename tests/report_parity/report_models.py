"""What each name of the report stands for, read from its text; "as run" from its code."""

from functools import partial

from report_layers import (
    coordinate,
    global_context,
    large_kernel_attention,
    multi_branch,
    replk_block,
    squeeze_excitation,
    triplet,
)
from report_networks import Attention, Network, network, replknet, resnet, van

# An earlier TripletCA of the report's code.
EARLIER_TRIPLETCA = (
    "resnet50_tripletca:attention.statistics=[avg, max],attention.inner_activation=relu_after_norm"
)
ACTIVATIONS = ("sigmoid", "relu", "gelu", "leaky_relu", "celu", "elu")
T = partial(triplet)
S = squeeze_excitation


def triplet_resnet(**options: object) -> Network:
    return network(resnet, attention=partial(triplet, **options))  # type: ignore[arg-type]


TRIPLET: dict[str, Network] = {
    "resnet50_triplet": triplet_resnet(),
    "resnet50_triplet_avg_max_median": triplet_resnet(statistics=("avg", "max", "median")),
    "resnet50_triplet_l1_max": triplet_resnet(statistics=("l1", "max")),
    "resnet50_triplet_l2_max": triplet_resnet(statistics=("l2", "max")),
    "resnet50_tripletca": triplet_resnet(spatial="coordinate"),
    "resnet50_tripletca_as_run": triplet_resnet(
        spatial="coordinate", statistics=("l2", "max"), after_norm="celu"
    ),
    "resnet50_tripletlkn": triplet_resnet(spatial="large_kernel"),
    "resnet50_tripletlkn_full": triplet_resnet(spatial="full_large_kernel"),
    "resnet50_tripletlkn_as_run": triplet_resnet(spatial="full_large_kernel"),
    **{f"resnet50_triplet_conv_{act}": triplet_resnet(before_norm=act) for act in ACTIVATIONS},
    **{
        f"resnet50_triplet_conv_{act}_as_run": triplet_resnet(after_norm=act) for act in ACTIVATIONS
    },
    "resnet50_triplet_gate_tanh": triplet_resnet(gate="tanh"),
    "resnet50_triplet_gate_softmax": triplet_resnet(gate="softmax"),
    "resnet50_triplet_gate_softmax_as_run": triplet_resnet(gate="softmax_over_batch"),
    "resnet50_triplet:stem=cifar": network(resnet, attention=T, stem="3x3"),  # tables 1 to 3
    EARLIER_TRIPLETCA: triplet_resnet(
        spatial="coordinate", statistics=("avg", "max"), after_norm="relu"
    ),
}

BASE: dict[str, Network] = {
    "resnet50": network(resnet),
    "resnet18": network(resnet, bottleneck=False),
    "resnet50_ca": network(resnet, attention=partial(coordinate, reduction=32)),
    "resnet50_ca_r16": network(resnet, attention=partial(coordinate, reduction=16)),
    "resnet50_gc": network(resnet, attention=global_context, attention_stages=(2, 3, 4)),
    "resnet50_sk": network(resnet, mixer="selective kernel"),
    "replknet_31b": network(replknet),
    "replknet_31b:drop_path_rate=0.3": network(replknet, last_drop_path=0.3),
}


LKA = large_kernel_attention
REPLK: Attention = partial(replk_block, rate=0.3)
VAN: dict[str, Network] = {
    "van_b0": network(van, spatial=LKA),
    "van_b0_lk": network(van, spatial=partial(LKA, local=7, kernel=11, dilation=5)),
    "van_b0_lk_d3": network(van, spatial=partial(LKA, local=7, kernel=11, dilation=3)),
    "van_b0_mb": network(van, spatial=partial(multi_branch, kernels=(5, 7, 9))),
    "van_b0_mb_3_5_7": network(van, spatial=partial(multi_branch, kernels=(3, 5, 7))),
    "van_b0_mb_7_9_11": network(van, spatial=partial(multi_branch, kernels=(7, 9, 11))),
    "van_b0_bn": network(van, spatial=partial(LKA, norm=True)),
    **{
        f"van_b0_act_{act}": network(van, spatial=partial(LKA, activation=act))
        for act in ("relu", "celu", "gelu", "elu")
    },
    "van_b0_replk": network(van, spatial=REPLK),
    "van_b0_replk_plain": network(van, spatial=partial(replk_block, rate=0.3, plain=True)),
    "van_b0_res2net": network(van, spatial=LKA, res2net=True),
    "van_b0_res2net_replk": network(van, spatial=REPLK, res2net=True),
}


def res2net(**options: object) -> Network:
    return network(resnet, mixer="split", **options)


CCD = {"activation": "celu", "stem": "deep", "downsample": "average pool"}
RES2NET: dict[str, Network] = {
    "res2net50": res2net(),
    **{f"res2net50_{act}": res2net(activation=act) for act in ACTIVATIONS[1:] if act != "relu"},
    "res2net50_se": res2net(attention=S),
    "res2net50_s1": res2net(branch_attention=S),
    "res2net50_t1": res2net(branch_attention=T),
    "res2net50_s2": res2net(attention=S),
    "res2net50_t2": res2net(attention=T),
    "res2net50_ss": res2net(branch_attention=S, attention=S),
    "res2net50_st": res2net(branch_attention=S, attention=T),
    "res2net50_ts": res2net(branch_attention=T, attention=S),
    "res2net50_tt": res2net(branch_attention=T, attention=T),
    "res2net50_c": res2net(stem="deep"),
    "res2net50_d": res2net(downsample="average pool"),
    "res2net50_cd": res2net(stem="deep", downsample="average pool"),
    "res2net50_celu_cd": res2net(**CCD),
    "res2net50_celu_cd_t2": res2net(**CCD, attention=T),
    "res2net50_celu_cd_st": res2net(**CCD, branch_attention=S, attention=T),
}

MODELS: dict[str, Network] = {**BASE, **TRIPLET, **VAN, **RES2NET}
# Names that differ in depth or width alone from one that is compared.
LARGER: dict[str, str] = {
    "resnet34": "resnet18",
    "resnet101": "resnet50",
    "resnet152": "resnet50",
    **{name.replace("b0", size): name for name in VAN for size in ("b1", "b2", "b3")},
}
