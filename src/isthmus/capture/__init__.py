"""How packets reach a proxy, as values; nothing here touches a kernel."""
