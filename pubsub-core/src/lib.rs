//! Provider-agnostic publish and subscribe: messages, topics, a topic trie that routes to subscribers, and a registry of providers.
