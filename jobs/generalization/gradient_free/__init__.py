"""Networks that fit their training images although no gradient was computed: thousands are tried in a forward pass."""
