"""`/vouch/heartbeat/1.0.0`: is the peer still there, how far away is it, and can it be relied on?"""
