"""A connection of h2, as it begins: what the client is told that it may do."""

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from service.grpc.blocks import BlockDecoder, BlockEncoder
from service.grpc.shortcuts import Shortcuts

MOST_STREAMS = 128  # at once, of a connection; more are told to come again
WINDOW = 1_048_576  # bytes that may be on their way here, of a stream and of all of them
LARGEST_FRAME = 65_536  # bytes
# A client may open more streams than MOST_STREAMS before it hears of that; to h2 that is an error.
_MOST_OF_H2 = 4096
_DEFAULT_WINDOW = 65_535


def opened() -> Shortcuts:
    """Return a connection of h2 that has sent its settings."""
    config = H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_inbound_headers=False,  # BlockDecoder does
        normalize_inbound_headers=False,  # cookies mean nothing here
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    h2 = Shortcuts(config)
    h2.encoder = BlockEncoder()
    h2.decoder = BlockDecoder(H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE)
    h2.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_CONCURRENT_STREAMS: _MOST_OF_H2,
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            SettingCodes.MAX_FRAME_SIZE: LARGEST_FRAME,
            SettingCodes.MAX_HEADER_LIST_SIZE: H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
        },
    )
    h2.max_inbound_frame_size = LARGEST_FRAME
    h2.initiate_connection()
    h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS})
    h2.increment_flow_control_window(WINDOW - _DEFAULT_WINDOW)
    return h2
