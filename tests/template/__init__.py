"""What AWS would make of template.yaml."""
