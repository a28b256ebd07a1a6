"""Searches for widths within a budget; they ask one question: how accurate are these widths?"""
