"""A twin in torch of mflux's FLUX.2 autoencoder, with the same names, at a small size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LATENTS = 32
# How many of them carry something; the others are 0, and the decoder does not look at them. A patch
# of 2x2 then has 48 numbers to tell, which a transformer of width 128 can.
USED = 12
# Which of them are equal is as in mflux: a shortcut is where two that follow each other differ.
WIDTHS = (8, 16, 32, 32)
# One group: of a plain picture, groups of two channels would keep no more than a sign.
GROUPS = 1
# What the decoder has to bear in each latent, a standard deviation.
NOISE = 0.05
_EPS = 1e-6


class Resnet(nn.Module):
    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, given, _EPS)
        self.conv1 = nn.Conv2d(given, made, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, made, _EPS)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(given, made, 1) if given != made else None

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(functional.silu(self.norm1(x)))
        inner = self.conv2(functional.silu(self.norm2(inner)))
        return inner + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, width, _EPS)
        self.to_q, self.to_k = nn.Linear(width, width), nn.Linear(width, width)
        self.to_v, self.to_out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.group_norm(x).flatten(2).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(
            self.to_q(flat), self.to_k(flat), self.to_v(flat)
        )
        return x + self.to_out(seen).transpose(1, 2).reshape(x.shape)


class Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(width, width), Resnet(width, width)])
        self.attentions = nn.ModuleList([Attention(width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Sampler(nn.Module):
    def __init__(self, width: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(width, width, 3, stride=1 if up else 2, padding=1 if up else 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Block(nn.Module):
    def __init__(self, given: int, made: int, count: int, *, up: bool, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            [Resnet(given if index == 0 else made, made) for index in range(count)]
        )
        samplers = nn.ModuleList([] if last else [Sampler(made, up=up)])
        setattr(self, "upsamplers" if up else "downsamplers", samplers)
        self._samplers = [samplers]

    def forward(self, x: Tensor) -> Tensor:
        for part in (*self.resnets, *self._samplers[0]):
            x = part(x)
        return x


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        pairs = list(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
        self.down_blocks = nn.ModuleList([
            Block(given, made, 2, up=False, last=index == len(pairs) - 1)
            for index, (given, made) in enumerate(pairs)
        ])  # fmt: skip
        self.mid_block = Middle(WIDTHS[-1])
        self.conv_norm_out = nn.GroupNorm(GROUPS, WIDTHS[-1], _EPS)
        self.conv_out = nn.Conv2d(WIDTHS[-1], 2 * LATENTS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(functional.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = WIDTHS[::-1]
        self.conv_in = nn.Conv2d(LATENTS, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0])
        pairs = list(zip((widths[0], *widths), widths, strict=False))
        self.up_blocks = nn.ModuleList([
            Block(given, made, 3, up=True, last=index == len(pairs) - 1)
            for index, (given, made) in enumerate(pairs)
        ])  # fmt: skip
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


class Norm(nn.Module):
    """Of the latents in patches of 2x2: what the transformer works on has mean 0 and variance 1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4 * LATENTS))
        self.register_buffer("running_var", torch.ones(4 * LATENTS))


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv = nn.Conv2d(2 * LATENTS, 2 * LATENTS, 1)
        self.post_quant_conv = nn.Conv2d(LATENTS, LATENTS, 1)
        self.bn = Norm()
        self.leave_unused()

    def leave_unused(self) -> None:
        """Put the weights of latents that are not used to 0, and all variances to one constant."""
        with torch.no_grad():
            for array in (self.quant_conv.weight, self.quant_conv.bias):
                array[USED:] = 0
            self.quant_conv.bias[LATENTS:] = 2 * math.log(NOISE)
            self.post_quant_conv.weight[:, USED:] = 0

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of pictures (n, 3, h, w) of -1 to 1 the means and log variances, (n, 32, h/8, w/8)."""
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, log_variance

    def decode(self, x: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(x))
