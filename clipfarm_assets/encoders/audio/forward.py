"""wav2vec 2.0's forward: exact as the model has it, or with its products in bfloat16.

Plain autocast spends half of its time on casting and on transposing for the convolutions. Here
weights are cast once, and a signal stays channels-last from the first convolution on.
"""

from typing import Any

from clipfarm_assets.encoders.config import Precision
from clipfarm_assets.encoders.loading import half_precision_copy


class AudioForward:
    """Samples to the mean of the last layer over time; safe to call from several threads.

    In exact precision that is the model's own forward. In bf16 the base model's architecture
    (group norm after the first convolution, layer norms after the sublayers) on CPU has a forward
    of its own, see `_BaseForward`; any other, such as the large models with layer norms in every
    convolution, and any other device runs under autocast.

    Attributes:
        note: One sentence for a report: which way is taken, and why.
    """

    def __init__(self, model: Any, precision: Precision) -> None:
        """Prepare the weights; copies them for bf16 on CPU.

        Args:
            model: A transformers ``Wav2Vec2Model``, on its device and in eval mode.
            precision: Of the matrix products.
        """
        self._device_type: str = model.device.type
        self._autocast = False
        self._last_hidden: Any = lambda samples: model(samples).last_hidden_state
        self.note = "the model's own forward"
        if precision == "bf16":
            if self._device_type == "cpu" and _is_base_architecture(model):
                self._last_hidden = _BaseForward(model)
                self.note = "bfloat16 weights, channels-last convolutions"
            else:
                self._autocast = True
                self.note = f"autocast: no faster way for this architecture on {self._device_type}"

    def __call__(self, samples: Any) -> Any:
        """The vector of one item, not yet normalised.

        Args:
            samples: Float32 tensor of shape (1, samples) on the model's device.

        Returns:
            Float32 tensor of shape (1, dim), on the same device.
        """
        import torch

        with (
            torch.inference_mode(),
            torch.autocast(self._device_type, torch.bfloat16, enabled=self._autocast),
        ):
            return self._last_hidden(samples).float().mean(dim=1)


class _BaseForward:
    """The base architecture with linear layers and convolutions in bfloat16.

    The residual stream and all norms are in float32.
    """

    def __init__(self, model: Any) -> None:
        import torch

        first, *rest = model.feature_extractor.conv_layers
        self._first = first
        self._convolutions = [
            (
                layer.activation,
                _half(layer.conv.weight).unsqueeze(2).contiguous(memory_format=torch.channels_last),
                None if layer.conv.bias is None else _half(layer.conv.bias),
                layer.conv.stride[0],
            )
            for layer in rest
        ]
        self._projection = half_precision_copy(model.feature_projection)
        positional = model.encoder.pos_conv_embed
        self._positional = positional
        # Weight norm makes this weight from two others at every call; here once.
        self._positional_weight = _half(positional.conv.weight)
        self._positional_bias = _half(positional.conv.bias)
        self._norm = model.encoder.layer_norm
        self._layers = half_precision_copy(model.encoder.layers)

    def __call__(self, samples: Any) -> Any:
        """Samples (1, samples) to the last layer's output (1, time, dim), float32."""
        import torch

        features = self._features(samples).float()
        projection = self._projection
        hidden = projection.projection(projection.layer_norm(features).to(torch.bfloat16))
        hidden = self._norm(hidden.float() + self._position(hidden))
        for layer in self._layers:
            mixed, _ = layer.attention(hidden.to(torch.bfloat16))
            hidden = layer.layer_norm(hidden + mixed.float())
            wide = layer.feed_forward(hidden.to(torch.bfloat16))
            hidden = layer.final_layer_norm(hidden + wide.float())
        return hidden

    def _features(self, samples: Any) -> Any:
        """Samples (1, samples) to features (1, time, channels) in bfloat16."""
        from torch.nn.functional import conv2d, linear

        windows, weight, bias = fold_group_norm(self._first, samples[0])
        hidden = self._first.activation(linear(windows, weight, bias))
        hidden = hidden[None, None].permute(0, 3, 1, 2)  # (1, channels, 1, time), channels last
        for activation, kernel, offset, stride in self._convolutions:
            hidden = activation(conv2d(hidden, kernel, offset, stride=(1, stride)))
        return hidden[:, :, 0].transpose(1, 2)

    def _position(self, hidden: Any) -> Any:
        """The positional convolution of (1, time, dim), in float32."""
        from torch.nn.functional import conv1d

        positional = self._positional
        convolved = conv1d(
            hidden.transpose(1, 2),
            self._positional_weight,
            self._positional_bias,
            padding=positional.conv.padding,
            groups=positional.conv.groups,
        )
        return positional.activation(positional.padding(convolved)).transpose(1, 2).float()


def fold_group_norm(layer: Any, samples: Any) -> tuple[Any, Any, Any]:
    """The first convolution and its group norm as one matrix product.

    A channel is ``w @ window`` with a row w of the kernel, so its mean over time is ``w @ mean``
    and its variance ``w @ covariance @ w``, with mean and covariance of the windows: ten values
    and a ten by ten matrix for the base model. So the norm's scale and shift go into the weights,
    and the widest signal of the model is not read once more. A bias of the convolution shifts a
    channel and its mean alike, and drops out.

    Args:
        layer: A transformers ``Wav2Vec2GroupNormConvLayer`` with a group for each channel.
        samples: Float32 of shape (samples,).

    Returns:
        Windows (time, kernel), weight (channels, kernel) and bias (channels,), in bfloat16;
        ``linear(windows, weight, bias)`` is the layer's output before its activation.
    """
    windows = samples.unfold(0, layer.conv.kernel_size[0], layer.conv.stride[0])
    wide = windows.double()
    mean = wide.mean(dim=0)
    centred = wide - mean
    covariance = centred.T @ centred / len(centred)
    weight = layer.conv.weight[:, 0].double()
    norm = layer.layer_norm
    variance = ((weight @ covariance) * weight).sum(dim=1)
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    bias = norm.bias.double() - scale * (weight @ mean)
    return _half(windows), _half(weight * scale[:, None]), _half(bias)


def _half(values: Any) -> Any:
    import torch

    return values.detach().to(torch.bfloat16)


def _is_base_architecture(model: Any) -> bool:
    """Whether `_BaseForward` describes the model: by its classes, which fix what they compute."""
    from transformers.models.wav2vec2 import modeling_wav2vec2 as known

    first, *rest = model.feature_extractor.conv_layers
    layers = model.encoder.layers
    return (
        isinstance(model.encoder, known.Wav2Vec2Encoder)
        and isinstance(first, known.Wav2Vec2GroupNormConvLayer)
        and first.layer_norm.num_groups == first.out_conv_dim
        and all(isinstance(layer, known.Wav2Vec2NoLayerNormConvLayer) for layer in rest)
        and all(isinstance(layer, known.Wav2Vec2EncoderLayer) for layer in layers)
        and model.adapter is None
    )
