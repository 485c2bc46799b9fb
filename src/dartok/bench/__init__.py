"""Cost and speed, side by side with the fixed grid."""
