"""One MQTT session, and an in-memory twin that behaves the same; the only room that imports paho."""
