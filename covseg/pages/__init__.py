"""What all HTML pages share: environment and policy, charts, drawing, number formats."""
