"""What a good reply must do: criteria with weights, who checks them, and how replies are scored by them."""
