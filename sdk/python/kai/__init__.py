"""Write kAI agents in Python: one subclass of Agent in the entry module.

Imports are kept light (no dataclasses, typing or asyncio here): every agent pays for them at each start.
"""

from kai._agent import Agent
from kai._errors import AgentError
from kai._message import Message, reply

__version__ = "0.1.0"
__all__ = ["Agent", "AgentError", "Message", "reply"]
