"""What both programs share: parameters, codec, wire, trust, link, task, sensors, control. Knows neither program."""

from importlib.metadata import version

__version__ = version("fieldfold")
