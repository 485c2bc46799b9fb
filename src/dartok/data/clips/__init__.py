"""Videos and clips of them: files, folders of class folders, lists and shards."""

from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.video import Video, decode_video, open_video

__all__ = ["ClipConfig", "Video", "decode_video", "open_video"]
