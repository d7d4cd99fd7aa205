//! Publish and subscribe over any MQTT broker that speaks WebSocket: an honest publish, subscriptions that survive a reconnect.
