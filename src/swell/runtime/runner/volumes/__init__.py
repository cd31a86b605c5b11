"""How do replicas come to see volumes, and how do others come to see what they changed in them?"""
