"""An endpoint on this machine that plays back recorded answers, and may misbehave in any way that real ones do."""
