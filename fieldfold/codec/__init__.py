"""Deltas to bytes and back: quantise, lay out, entropy-code; error feedback.

    payload = encode(delta)                      # the profile `balanced`
    delta = decode(payload, num_params)

    feedback = ErrorFeedback.start(num_params)   # what a lossy profile drops is sent later
    payload, decoded, feedback, *_ = feedback.encode(delta)

numpy and zstandard only; no input or output.
"""

from fieldfold.codec.delta import Delta, add_all
from fieldfold.codec.feedback import Encoded, ErrorFeedback
from fieldfold.codec.payload import FORMAT_VERSION, decode, decode_delta, encode
from fieldfold.codec.profile import DEFAULT_PROFILE, PROFILES, Profile, find_profile

__all__ = [
    "DEFAULT_PROFILE",
    "FORMAT_VERSION",
    "PROFILES",
    "Delta",
    "Encoded",
    "ErrorFeedback",
    "Profile",
    "add_all",
    "decode",
    "decode_delta",
    "encode",
    "find_profile",
]
