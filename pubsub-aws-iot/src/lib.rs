//! Publish and subscribe through AWS IoT Core: a freshly signed WebSocket for every connection, credentials that renew themselves.
