"""What is known of operations, by the names that PyTorch's functions, methods and modules have."""

from torch import nn

ELEMENTWISE_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh),
    *(nn.Softplus, nn.Softsign, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold),
    *(nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity),
)
ELEMENTWISE = {
    *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "rrelu", "elu", "elu_", "selu"),
    *("selu_", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid"),
    *("sigmoid_", "logsigmoid", "tanh", "tanh_", "softplus", "softsign", "hardshrink"),
    *("softshrink", "tanhshrink", "threshold", "abs", "neg", "negative", "pow", "pow_", "exp"),
    *("exp_", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "erf", "sin"),
    *("cos", "floor", "round", "sign", "clamp", "clamp_", "clip", "clamp_min", "clamp_max"),
    *("dropout", "dropout2d", "alpha_dropout", "feature_alpha_dropout", "stochastic_depth"),
    *("drop_path", "contiguous", "clone", "detach", "detach_", "float", "half", "double"),
    *("bfloat16", "to", "type", "type_as", "cpu", "cuda", "requires_grad_", "nan_to_num"),
    *("zeros_like", "ones_like", "full_like", "empty_like", "rsub", "positive", "logit"),
}
"""Each number of the result comes from the number in its place."""
RANDOM_IN_TRAINING = {
    **{"dropout": (2, True), "dropout2d": (2, True), "stochastic_depth": (3, True)},
    **{"alpha_dropout": (2, False), "feature_alpha_dropout": (2, False), "drop_path": (2, False)},
    "rrelu": (3, False),
}
"""Of these, where the mode (`training`, or `train`) is among their arguments, and what it is where
it is not given."""
TYPES = {"float", "half", "double", "bfloat16", "to", "type", "type_as", "cpu", "cuda"}
"""Of these, what changes the type of numbers, or where they are."""
LIKE_THE_FIRST = {"type_as", "to"}
"""Of whose further tensors only the type matters."""

ADDED = {"add", "iadd", "add_", "sub", "isub", "sub_", "subtract", "rsub"}
MULTIPLIED = {"mul", "imul", "mul_", "multiply", "truediv", "itruediv", "div", "div_", "divide"}
COMPARED = {
    *("maximum", "minimum", "fmax", "fmin", "where", "lerp", "addcmul", "addcdiv", "pow", "hypot"),
    *("gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "masked_fill"),
    *("max", "min", "atan2", "floordiv", "mod", "floor_divide"),
}
"""Operations in which two tensors or more meet, number by number."""
MEETS_NUMBERS = ELEMENTWISE | ADDED | MULTIPLIED | COMPARED
"""What may be given plain numbers that change the result."""

POOLING_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad2d),
    *(nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d),
)
POOLING = {
    *("max_pool2d", "boolean_dispatch", "avg_pool2d", "lp_pool2d", "adaptive_avg_pool2d"),
    *("adaptive_max_pool2d", "interpolate", "upsample"),
}
"""Each channel by itself, from some positions to others."""

COUPLED_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Softmin, nn.LocalResponseNorm),
)
COUPLED = {"softmax", "log_softmax", "softmin", "normalize", "local_response_norm"}
"""Each number stays in its place, in proportion to others."""

REDUCED = {
    *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "prod", "logsumexp"),
    *("nanmean", "median", "vector_norm", "var_mean", "std_mean", "any", "all"),
}
IN_PAIRS = {"max", "min", "median", "var_mean", "std_mean"}
"""Reductions that return two tensors when they are given axes."""

MOVED = {
    *("transpose", "permute", "flatten", "unsqueeze", "unsqueeze_", "squeeze", "movedim"),
    *("moveaxis", "swapaxes", "swapdims", "t", "repeat", "tile", "repeat_interleave", "expand"),
    *("expand_as", "broadcast_to", "stack", "unbind", "squeeze_", "adjoint"),
}
"""Numbers keep what they are and change their places."""
IN_ORDER = {"roll", "flip", "cumsum"}
"""Work along given axes; where numbers do not differ along these, nothing changes."""

SIZES = {"size", "dim", "getattr", "numel", "stride", "ndimension", "__len__", "get_device"}

SUPPORTED = (
    "convolution (grouped, depthwise, transposed), linear, batch, group, instance and layer "
    "normalisation, per-channel parameters, activations, pooling, padding, resizing, pixel "
    "shuffle, addition, product, comparison, concatenation, chunk, split, reshape, transpose, "
    "reductions and softmax"
)
