"""Property tests without a deadline: how long an example takes is the machine's business, not ours."""

from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
